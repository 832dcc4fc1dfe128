"""What both back-ends promise: the same tiny problems, the same door, the same answers to the same questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rlearndeep.backends import get_backend
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.training import fit, prepare, train
from rlearndeep.model import ModelCard, Network, read_card, read_feature_space
from rlearndeep.prediction.answers import Member, Question, Subject
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import UNLABELLED
from synthetic_patches import CLASSES, make_patches

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("torch", "keras")
ENGINES = ("torch", "jax")  # beside TensorFlow, which these processes have

SMALL_FCN: dict[str, Any] = {"architecture": "fcn_dilated", "network": {"filters": 8, "blocks": 2}}
SMALL_CNN: dict[str, Any] = {"architecture": "cnn", "network": {"filters": 4, "blocks": 2, "dropout": 0.1}}
PERCEPTRON: dict[str, Any] = {"architecture": "mlp", "network": {"hidden": [16]}}

# unit, rows and columns, patches, task, settings, score, margin between the back-ends, least
PROBLEMS = {
    "cells": ("cell", 1, 400, "class", {**PERCEPTRON, "epochs": 8}, "f1_macro", 0.05, 0.9),
    "map": ("cell", 12, 40, "class", {**SMALL_FCN, "epochs": 12, "augment": ("flip",)}, "f1_macro", 0.15, 0.7),
    "patches": ("patch", 8, 80, "class", {**SMALL_CNN, "epochs": 10}, "f1_macro", 0.1, 0.9),
    "presence": ("patch", 8, 80, "presence", {**SMALL_CNN, "epochs": 14}, "f1_macro", 0.15, 0.8),
    "values": ("cell", 1, 400, "value", {**PERCEPTRON, "epochs": 12}, "r2", 0.15, 0.75),
}


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> ModuleType:
    return one_thread(request.param)


def one_thread(name: str) -> ModuleType:
    found = get_backend(name)
    if name == "torch":
        import torch

        torch.set_num_threads(1)
    return found


def trained(directory: Path, backend: ModuleType, problem: str, **changes: Any) -> dict[str, Any]:
    unit, size, count, task, values, *_ = PROBLEMS[problem]
    if not (directory / "patches").exists():
        make_patches(directory / "patches", unit, size, count, task=task)
    from rlearndeep.patches import PatchDataset

    settings = Settings(**{**values, "device": "cpu", "nprocs": 1, "learning_rate": 0.01, **changes})
    plan = prepare([PatchDataset.open(directory / "patches")], settings, backend)
    scores = train(plan, directory / backend.FILE, backend)
    assert scores is not None
    return scores


# What only the PyTorch back-end has: Keras refuses pre-training before any of it is asked for.
PRETRAINING = {"Encoder", "Pretrained", "pretrain"}


def test_the_door_is_the_same() -> None:
    torch, keras = (get_backend(name) for name in NAMES)
    assert set(torch.__all__) - PRETRAINING == set(keras.__all__)
    for name in ("mlp", "cnn", "fcn_dilated", "unet", "deeplabv3plus", "resnet18", "resnet50"):
        assert torch.answers(name) == keras.answers(name)
        assert name in ("resnet18", "resnet50") or torch.stride(Network(name, 4, 3)) == keras.stride(
            Network(name, 4, 3)
        )


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_same_problem_is_learned_as_well(tmp_path: Path, problem: str) -> None:
    *_, key, margin, least = PROBLEMS[problem]
    found = {}
    for name in NAMES:
        scores = trained(tmp_path, one_thread(name), problem)
        found[name] = scores["parts"]["test"][key]
        card = read_card(tmp_path / get_backend(name).FILE)
        assert card.backend == name and card.training["versions"][name] != "unknown"
        history = (tmp_path / get_backend(name).FILE / "history.csv").read_text().splitlines()
        assert history[0].split(",")[:3] == ["epoch", "training_loss", "validation_loss"]
        assert len(history) == scores["epochs"] + 1
    assert min(found.values()) >= least, found
    assert abs(found["torch"] - found["keras"]) <= margin, found


NETWORKS = (
    Network("mlp", 5, 3, {"hidden": [9, 7]}),
    Network("mlp", 5, 3, {"unit": "patch"}),
    Network("cnn", 5, 3, {"filters": 6, "blocks": 2}),
    Network("fcn_dilated", 5, 7),
    Network("fcn_dilated", 4, 3, {"filters": 8, "kernel": [5, 3], "blocks": 3, "dilations": [1, 2]}),
    Network("unet", 5, 3, {"encoder": "resnet18"}),
    Network("resnet18", 5, 3),
)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.architecture)
def test_networks_of_both_have_as_many_weights(network: Network) -> None:
    torch, keras = (get_backend(name).build(network) for name in NAMES)
    expected = sum(parameter.numel() for parameter in torch.parameters())
    assert sum(int(np.prod(variable.shape)) for variable in keras.model.trainable_variables) == expected


@pytest.mark.parametrize("size", ((1, 1), (5, 3), (33, 40)))
@pytest.mark.parametrize("architecture", ("mlp", "cnn", "fcn_dilated", "unet", "deeplabv3plus", "resnet18"))
def test_inputs_of_any_size_get_answers_of_that_size(architecture: str, size: tuple[int, int]) -> None:
    module = get_backend("keras").build(_network(architecture))
    logits = module.logits(np.zeros((1, 5, *size), dtype=np.float32))
    assert logits.shape == ((1, 3) if architecture in ("cnn", "resnet18") else (1, 3, *size))
    assert np.isfinite(logits).all()


def _network(architecture: str) -> Network:
    options = {"fcn_dilated": {"filters": 4, "blocks": 2}, "cnn": {"filters": 4}, "unet": {"depth": 3}}
    return Network(architecture, 5, 3, options.get(architecture, {}))


LOSSES = {
    "class": ("cross_entropy", "focal", "dice", "jaccard", "cross_entropy+dice"),
    "presence": ("bce", "focal", "dice", "jaccard", "bce+dice"),
    "value": ("mse", "mae", "huber"),
}


def labelled(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 3, 4, 4), (N, 3) or (N, 1, 4, 4), and labels of which a third is missing."""
    random = np.random.default_rng(3)
    if task == "value":
        labels = random.normal(size=(6, 4, 4)).astype(np.float32)
        return random.normal(size=(6, 1, 4, 4)).astype(np.float32), np.where(
            random.random((6, 4, 4)) < 0.3, np.nan, labels
        )
    if task == "presence":
        labels = random.integers(2, size=(12, 3))
        labels[::3] = UNLABELLED
        return 3 * random.normal(size=(12, 3)).astype(np.float32), labels
    labels = np.where(random.random((6, 4, 4)) < 0.3, UNLABELLED, random.integers(3, size=(6, 4, 4)))
    return 3 * random.normal(size=(6, 3, 4, 4)).astype(np.float32), labels


def loss_of(name: str, text: str, task: str, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    if name == "torch":
        import torch
        from rlearndeep.backends.torch.losses import make_loss

        return float(make_loss(text, torch.tensor(weights), task)(torch.tensor(logits), torch.tensor(labels)))
    from rlearndeep.backends.keras.losses import make_loss as keras_loss

    return float(keras_loss(text, weights, task)(np.moveaxis(logits, 1, -1), labels))


@pytest.mark.parametrize(("task", "text"), [(task, text) for task, texts in LOSSES.items() for text in texts])
def test_losses_are_the_same_numbers_and_pass_over_what_is_unlabelled(task: str, text: str) -> None:
    weights = np.array([1.0, 2.0, 0.5], dtype=np.float32)
    logits, labels = labelled(task)
    wild = logits.copy()
    unlabelled = np.isnan(labels) if task == "value" else labels == UNLABELLED
    np.moveaxis(wild, 1, -1)[unlabelled if task != "presence" else unlabelled.any(axis=1)] = 50.0
    none = np.full_like(labels, np.nan if task == "value" else UNLABELLED)
    values = {name: loss_of(name, text, task, logits, labels, weights) for name in NAMES}
    assert values["keras"] == pytest.approx(values["torch"], rel=1e-5)
    for name in NAMES:
        assert loss_of(name, text, task, wild, labels, weights) == pytest.approx(values[name], rel=1e-6)
        assert loss_of(name, text, task, logits, none, weights) == 0.0


@pytest.mark.parametrize("task", LOSSES)
def test_what_is_unlabelled_gives_no_gradient(task: str) -> None:
    import tensorflow
    from rlearndeep.backends.keras.losses import make_loss

    logits, labels = labelled(task)
    known = ~np.isnan(labels) if task == "value" else labels != UNLABELLED
    known = known if task == "presence" else known[..., None]
    for text in LOSSES[task]:
        inputs = tensorflow.Variable(np.moveaxis(logits, 1, -1))
        with tensorflow.GradientTape() as tape:
            loss = make_loss(text, np.ones(3, dtype=np.float32), task)(inputs, labels)
        gradient = tape.gradient(loss, inputs).numpy()
        assert np.isfinite(gradient).all() and not gradient[np.broadcast_to(~known, gradient.shape)].any()
        assert gradient[np.broadcast_to(known, gradient.shape)].any()


def test_the_normalised_input_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    import torch
    from rlearndeep.backends.torch.feeding import on_device

    part = _part(make_patches(tmp_path / "patches", size=6, count=20, null=0.2))
    here = list(part.batches(5, (1, 2)))
    there = list(on_device(part.raw_batches(5, (1, 2)), part, torch.device("cpu")))
    for (images, labels), (tensors, marks) in zip(here, there, strict=True):
        assert np.array_equal(images, tensors.numpy()) and np.array_equal(labels, marks.numpy())


def _part(dataset: Any, name: str = "training") -> Part:
    sites = Sites.of([dataset])
    return sites.part(name, Normalization.from_statistics("band", sites.statistics))


class _Killed(Exception):
    """The end of a process."""


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, backend: ModuleType) -> None:
    dataset = make_patches(tmp_path / "patches", "patch", 8, 40)
    part = _part(dataset)
    settings = resolved(
        Settings(**SMALL_CNN, epochs=4, device="cpu", augment=("flip", "noise"), nprocs=1), "patch", (8, 8), len(part)
    )

    def fit(folder: str, stop: int = 0) -> Any:
        def progress(row: dict[str, Any]) -> None:
            if row["epoch"] == stop:
                raise _Killed

        (tmp_path / folder).mkdir(exist_ok=True)
        network = Network("cnn", 4, 3, dict(settings.network or {}))
        return backend.fit(
            network, part, _part(dataset, "validation"), settings, task="class", target=None, class_weights=np.ones(3),
            spread=np.ones(4), measure=_Accuracy(), folder=tmp_path / folder, progress=progress, warn=print,
        )  # fmt: skip

    whole = fit("whole")
    with pytest.raises(_Killed):
        fit("killed", 2)
    assert backend.epochs_done(tmp_path / "killed") == 2
    again = fit("killed")
    rows = [[{**row, "seconds": 0} for row in run.history] for run in (whole, again)]
    assert rows[0] == rows[1] and whole.best_epoch == again.best_epoch
    files = [tmp_path / f"{number}{Path(backend.FILE).suffix}" for number in (1, 2)]
    for run, file in zip((whole, again), files, strict=True):
        backend.save(run.module, file)
    answers = [
        _answer(backend, file, whole, network=Network("cnn", 4, 3, dict(settings.network or {}))) for file in files
    ]
    assert np.array_equal(*answers)


def test_the_encoder_learns_at_its_share_of_the_rate(tmp_path: Path, backend: ModuleType) -> None:
    dataset = make_patches(tmp_path / "patches", "patch", 8, 24, shares=(1.0, 0.0, 0.0))
    values: dict[str, Any] = {**SMALL_CNN, "device": "cpu", "nprocs": 1, "epochs": 1, "learning_rate": 0.01}
    train(prepare([dataset], Settings(**values), backend), tmp_path / "first", backend)
    moved = []
    for rate in (1e-6, 0.01, 1.0):
        plan = prepare([dataset], Settings(**values, weights=str(tmp_path / "first"), encoder_rate=rate), backend)
        (tmp_path / f"run{rate}").mkdir()
        module = fit(plan, tmp_path / f"run{rate}", backend).module
        moved.append(_first_filters(module))
    slow, fast = (np.abs(filters - moved[0]).mean() for filters in moved[1:])
    assert 0 < slow < 0.1 * fast


def _first_filters(module: Any) -> np.ndarray:
    if hasattr(module, "model"):
        return np.array(module.model.trainable_weights[0])
    return next(module.parameters()).detach().numpy()


@pytest.mark.parametrize("place", ("_step", "_validate"))
def test_a_lack_of_memory_ends_training_with_keras_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    from rlearndeep.backends.keras.learner import Learner

    class ResourceExhaustedError(Exception):
        """What TensorFlow raises."""

    def full(*_: Any) -> Any:
        raise ResourceExhaustedError("OOM when allocating tensor")

    monkeypatch.setattr(Learner, place, full)
    with pytest.raises(DeepLearningError, match="its optimizer and 16 patches must fit the memory of cpu"):
        trained(tmp_path, one_thread("keras"), "patches", epochs=1, batch_size=16)


def test_one_of_several_trainings_that_a_scheduler_numbers_writes_its_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: ModuleType
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert trained(tmp_path, backend, "cells", epochs=1)["epochs"] == 1
    assert read_card(tmp_path / backend.FILE).network.architecture == "mlp"


class _Accuracy:
    column, sign = "validation_accuracy", 1

    @staticmethod
    def of(matrix: np.ndarray) -> float:
        return float(np.diag(matrix).sum() / matrix.sum())


def _answer(backend: ModuleType, file: Path, run: Any, network: Network) -> np.ndarray:
    images = np.random.default_rng(1).normal(size=(3, 4, 8, 8)).astype(np.float32)
    card = _card(backend, network, file.name)
    return backend.load(file.parent, card, "cpu", "32").predict(images)


def _card(backend: ModuleType, network: Network, weights: str) -> ModelCard:
    return ModelCard(
        backend=backend.__name__.rpartition(".")[2],
        weights=weights,
        network=network,
        unit="patch",
        bands=tuple(Band(f"b{number}") for number in range(network.bands)),
        normalization=Normalization("none"),
        classes=CLASSES,
        patch=(8, 8),
        resolution=(1.0, 1.0),
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same small network trained with both back-ends on the same patches."""
    directory = tmp_path_factory.mktemp("models")
    for name in NAMES:
        trained(directory, one_thread(name), "map", epochs=4)
    return directory


def _images() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(2, 4, 21, 18)).astype(np.float32)


def test_models_of_both_answer_together(models: Path) -> None:
    members = []
    for name in NAMES:
        directory = models / get_backend(name).FILE
        card = read_card(directory)
        predictor = get_backend(name).load(directory, card, "cpu", "32")
        members.append(Member(predictor, card, (0, 1, 2, 3), read_feature_space(directory)))
    question = Question(Subject.of(members[0].card), spread=True, novelty=True)
    for member in members:
        answer = member.answer(question, _images())
        assert answer.shape == (2, 5, 21, 18) and np.isfinite(answer).all()
        np.testing.assert_allclose(answer[:, :3].sum(axis=1), 1, atol=1e-5)
    cards = [member.card for member in members]
    assert cards[0].bands == cards[1].bands and cards[0].classes == cards[1].classes
    assert cards[0].normalization == cards[1].normalization


def test_a_batch_that_does_not_fit_is_predicted_in_halves(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = models / "model.keras"
    predictor = get_backend("keras").load(directory, read_card(directory), "cpu", "32")
    images = np.concatenate([_images(), 2 * _images(), -_images()])
    whole = predictor.predict_with_features(images)
    pixels = predictor.pixels_per_batch

    class ResourceExhaustedError(Exception):
        """What TensorFlow raises."""

    for model in (predictor._scores, predictor._both):
        inner = model.predict_on_batch

        def limited(batch: np.ndarray, inner: Any = inner) -> Any:
            if len(batch) > 2:
                raise ResourceExhaustedError
            return inner(batch)

        monkeypatch.setattr(model, "predict_on_batch", limited)
    for one, other in zip(whole, predictor.predict_with_features(images), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(predictor.predict(images), whole[0], atol=1e-5)
    assert predictor.pixels_per_batch < pixels


PREDICTING = """
import sys
sys.path.insert(0, {lib!r})
import numpy as np
from rlearndeep.backends import get_backend
from rlearndeep.model import read_card
backend = get_backend("keras")
answer = backend.load({model!r}, read_card({model!r}), "cpu", "32").predict(np.load({images!r}))
assert not sys.modules.get("tensorflow")
np.save({answer!r}, answer)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_another_engine_gives_the_same_answer(models: Path, tmp_path: Path, engine: str) -> None:
    here = get_backend("keras").load(models / "model.keras", read_card(models / "model.keras"), "cpu", "32")
    there = _predicted(models / "model.keras", tmp_path, engine)
    assert np.abs(there - here.predict(_images())).max() < 1e-4


def _predicted(model: Path, place: Path, engine: str) -> np.ndarray:
    """The answer to the images of a process that has another engine."""
    np.save(place / "images.npy", _images())
    names = {"lib": str(ROOT / "lib"), "model": str(model), "images": f"{place}/images.npy"}
    done = _run(PREDICTING.format(**names, answer=f"{place}/answer.npy"), KERAS_BACKEND=engine)
    assert done.returncode == 0, done.stderr
    return np.load(place / "answer.npy")


TRAINING = """
import sys
sys.path[:0] = [{lib!r}, {tests!r}]
from pathlib import Path
from rlearndeep.backends import get_backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import prepare, train
from synthetic_patches import make_patches
backend = get_backend("keras")
dataset = make_patches(Path({place!r}) / "patches", size=4, count=200)
plan = prepare([dataset], Settings("mlp", epochs=12, learning_rate=0.01, network={{"hidden": [8]}}), backend)
scores = train(plan, Path({place!r}) / "model", backend)
assert not sys.modules.get("tensorflow")
print(scores["parts"]["test"]["overall_accuracy"])
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_trains_models_for_the_others(tmp_path: Path, engine: str) -> None:
    names = {"lib": str(ROOT / "lib"), "tests": str(ROOT / "testsuite"), "place": str(tmp_path)}
    done = _run(TRAINING.format(**names), KERAS_BACKEND=engine)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert float(done.stdout) > 0.8
    card = read_card(tmp_path / "model")
    assert card.training["versions"].get(engine)
    here = get_backend("keras").load(tmp_path / "model", card, "cpu", "32").predict(_images())
    (other,) = set(ENGINES) - {engine}
    assert np.abs(_predicted(tmp_path / "model", tmp_path, other) - here).max() < 1e-4


def _run(program: str, **env: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


WITHOUT_TORCH = """
import json, sys
sys.path[:0] = [{lib!r}, {tests!r}]
class Absent:
    def find_spec(self, name, *_):
        package = name.partition(".")[0]
        if package in ("torch", "torchvision", "lightning_fabric", "timm", "segmentation_models_pytorch"):
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from rlearndeep.backends import get_backend
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import prepare, train
from synthetic_patches import make_patches
backend = get_backend("keras")
dataset = make_patches(Path({place!r}) / "patches", size=1, count=600)
plan = prepare([dataset], Settings(epochs=12, learning_rate=0.01, network={{"hidden": [8]}}), backend)
scores = train(plan, Path({place!r}) / "m", backend)
print(json.dumps(scores["parts"]["test"]["overall_accuracy"]))
"""


def test_without_pytorch_keras_trains_scores_and_predicts_in_silence(tmp_path: Path) -> None:
    done = _run(WITHOUT_TORCH.format(lib=str(ROOT / "lib"), tests=str(ROOT / "testsuite"), place=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) > 0.8 and done.stderr == ""
    assert read_card(tmp_path / "m").weights == "model.keras"


def test_who_asks_for_pytorch_never_loads_keras_and_a_missing_engine_is_named() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r})\n"
        "import rlearndeep.learning.training, rlearndeep.prediction.stream\n"
        "from rlearndeep.backends import get_backend\n"
        "from rlearndeep.errors import DeepLearningError\n"
        "get_backend('torch')\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules), 'loaded unasked'\n"
        "for missing in ('keras', 'tensorflow'):\n"
        "    sys.modules[missing] = None\n"
        "    try:\n"
        "        get_backend('keras')\n"
        "    except DeepLearningError as error:\n"
        "        print(error)\n"
        "    del sys.modules[missing]\n"
        "    for name in [name for name in sys.modules if name.startswith(('keras', 'rlearndeep.backends.keras'))]:\n"
        "        del sys.modules[name]\n"
    )
    done = _run(program)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "-m pip install keras" in first and "-m pip install tensorflow" in second


@pytest.mark.parametrize(
    ("values", "named"),
    (
        ({"devices": 2}, "devices=2"),
        ({"nodes": 2}, "nodes=2"),
        ({"optimizer": "adam", "weight_decay": 0.1}, "weight_decay=0.1 with optimizer=adam"),
        ({"architecture": "segformer", "network": {}}, "'segformer'"),
        ({"architecture": "unet", "network": {"encoder": "mit_b0"}}, "'mit_b0'"),
        ({"device": "cuda:9"}, "'cuda:9'"),
        ({"precision": "16", "device": "cpu"}, "precision=16"),
    ),
)
def test_what_keras_cannot_serve_is_refused_by_name_before_training(values: dict[str, Any], named: str) -> None:
    settings = resolved(Settings(**{**PERCEPTRON, **values}), "cell", (32, 32), 20)
    network = Network(settings.architecture, 4, 3, dict(settings.network or {}))
    with pytest.raises(DeepLearningError, match=named) as caught:
        get_backend("keras").check(network, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "unknown"), (("torch", "unett"), ("keras", "unett"), ("keras", "fpn")))
def test_a_network_that_does_not_exist_is_not_said_to_answer_otherwise(tmp_path: Path, name: str, unknown: str) -> None:
    dataset = make_patches(tmp_path / "patches")
    with pytest.raises(DeepLearningError, match=f"The architecture must be one .*got '{unknown}'"):
        prepare([dataset], Settings(architecture=unknown), get_backend(name))


def test_keras_cannot_pre_train_and_says_so() -> None:
    with pytest.raises(DeepLearningError, match=r"it got pretrain for 'cnn'.*choose backend=torch"):
        get_backend("keras").check_pretraining(Network("cnn", 4, 3), resolved(Settings(), "patch", (8, 8), 20), (8, 8))
