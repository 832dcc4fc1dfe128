"""Learning without labels: the loss, the views, and what an encoder learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch import contrast, contrast_learner, step
from rlearndeep.backends.torch.contrast_loss import nt_xent, paired_loss
from rlearndeep.backends.torch.transfer import encoder_of
from rlearndeep.backends.torch.trunk import Trunk
from rlearndeep.backends.torch.views import view
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning import pretrained, training
from rlearndeep.learning.options import Settings
from rlearndeep.learning.probe import linear_probe
from rlearndeep.model import FEATURES, Network, read_any_card, read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.inputs import Further, Inputs
from safetensors.torch import load_file
from synthetic_patches import make_patches, make_sources
from textures import make_textures

SMALL = {"filters": 8, "blocks": 2}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


def vectors(count: int, width: int = 5) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, width), dim=1)


def brute_force(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """The formula of Chen et al. (2020), by loops."""
    views, count, losses = [*first.tolist(), *second.tolist()], len(first), []
    for number, anchor in enumerate(views):
        partner = views[(number + count) % (2 * count)]
        others = [other for position, other in enumerate(views) if position != number]
        scores = [math.exp(sum(a * b for a, b in zip(anchor, other, strict=True)) / temperature) for other in others]
        positive = math.exp(sum(a * b for a, b in zip(anchor, partner, strict=True)) / temperature)
        losses.append(-math.log(positive / sum(scores)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", (0.1, 0.7))
def test_the_loss_is_that_of_the_paper(temperature: float) -> None:
    first, second = vectors(4), vectors(4)
    expected = brute_force(first, second, temperature)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(expected, rel=1e-5)


def test_sources_that_a_place_lacks_are_not_compared() -> None:
    first, second = ({"reference": vectors(4), "series": vectors(4)} for _ in range(2))
    present = {"series": torch.tensor([True, True, False, True])}
    loss = paired_loss(first, second, present, 0.5)
    pairs = [
        ("reference", "reference", 4),
        ("reference", "series", 3),
        ("series", "reference", 3),
        ("series",) * 2 + (3,),
    ]
    kept = {4: [0, 1, 2, 3], 3: [0, 1, 3]}
    expected = [brute_force(first[one][kept[n]], second[other][kept[n]], 0.5) for one, other, n in pairs]
    assert float(loss) == pytest.approx(float(np.mean(expected)), rel=1e-5)
    nowhere = {"series": torch.zeros(4, dtype=torch.bool)}
    alone = nt_xent(first["reference"], second["reference"], 0.5)
    assert float(paired_loss(first, second, nowhere, 0.5)) == pytest.approx(float(alone))


def test_views_differ_and_null_stays_null() -> None:
    images = torch.randn(6, 3, 12, 12) + 3
    images[:, :, :, :6] = 0
    generator = torch.Generator().manual_seed(1)
    first, second = (view(images, torch.ones(3), generator) for _ in range(2))
    again = view(images, torch.ones(3), torch.Generator().manual_seed(1))
    assert torch.equal(first, again) and first.shape == images.shape
    assert all(not torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert torch.isfinite(first).all() and (view(torch.zeros_like(images), torch.ones(3), generator) == 0).all()


def test_views_of_a_series_miss_dates_but_never_all() -> None:
    valid = torch.ones(40, 3, 8, 8, dtype=torch.bool)
    valid[0, 1:] = False
    source = Further(torch.randn(40, 3, 2, 8, 8) + 5, valid, torch.zeros(40, 4), torch.arange(3.0).repeat(40, 1))
    changed = view(
        Inputs(torch.randn(40, 2, 8, 8), {"series": source}), torch.ones(2), torch.Generator().manual_seed(1)
    )
    seen = changed.further["series"].valid.flatten(2).any(dim=2)
    assert seen.any(dim=1).all() and not seen.all() and seen[0].tolist() == [True, False, False]
    values = changed.further["series"].values
    assert not values[~changed.further["series"].valid.unsqueeze(2).expand_as(values)].any()


@pytest.mark.parametrize(
    "network",
    (
        Network("unet", 3, 4, {"encoder": "resnet18"}),
        Network("segformer", 3, 4, {"encoder": "mit_b0"}),
        Network("resnet18", 3, 4),
        Network("cnn", 3, 4, SMALL),
        Network("fcn_dilated", 3, 4, {"filters": 8, "blocks": 2}),
    ),
    ids=lambda network: network.architecture,
)
def test_all_of_an_encoder_learns_and_nothing_else(network: Network) -> None:
    trunk = Trunk(network, (40, 40))
    features = trunk(torch.randn(2, 3, 40, 40))
    assert {name: own.shape[1] for name, own in features.items()} == trunk.widths and len(features) == 1
    (features["reference"] * torch.randn(trunk.widths["reference"])).sum().backward()
    belongs = encoder_of(network)
    learning = {name for name, value in trunk.network.named_parameters() if value.grad is not None}
    encoder = {name for name, _ in trunk.network.named_parameters() if belongs(name)}
    # A transformer of several stages normalises what only the decoder takes.
    assert learning == encoder or (network.architecture == "segformer" and len(learning) > len(encoder) / 2)
    assert learning <= encoder


def settings(folder: Path, **values: Any) -> Settings:
    given = {"architecture": "cnn", "network": SMALL, "pretrain": "simclr", "pretrain_epochs": 3, "device": "cpu"}
    return Settings(**{**given, "unlabelled": (str(folder),), "nprocs": 1, **values})


def alone(directory: Path, folder: Path, **values: Any) -> tuple[Path, list[str]]:
    """A model directory that has been pre-trained, and what the user was told."""
    how = {name: values.pop(name) for name in ("resume", "overwrite", "progress") if name in values}
    said: list[str] = []
    plan = pretrained.prepare_alone(settings(folder, **values), backend)
    target = directory / "model"
    pretrained.pretrain_alone(plan, target, backend, command="r.learn.deep.train ...", warn=said.append, **how)
    return target, said


def history(model: Path) -> list[list[str]]:
    """Losses of the epochs."""
    return [line.split(",")[:3] for line in (model / "pretraining.csv").read_text().splitlines()[1:]]


def test_pre_training_helps_where_labels_are_few(tmp_path: Path) -> None:
    make_textures(tmp_path / "unlabelled", 320, seed=1, labelled=False)
    labelled = make_textures(tmp_path / "labelled", 24, 60, seed=2)
    network = {"filters": 16, "blocks": 2}
    given = settings(
        tmp_path / "unlabelled", pretrain_epochs=10, epochs=1, batch_size=24, learning_rate=0.003, network=network
    )
    plan = training.prepare([labelled], given, backend)
    scores = training.train(plan, tmp_path / "model", backend)
    found = scores["pretraining"]
    probe = found["linear_probe"]
    print(found)
    assert probe["pretrained"] > probe["random"] + 0.1 and probe["pretrained"] > 0.9
    chance = math.log(2 * len(plan.pretraining.held_out) - 1)
    assert found["loss"] < chance - 1
    card = read_card(tmp_path / "model")
    assert card.training["pretrained"] and card.training["weights"]["origin"] == "pre-training"
    assert "Pre-training" in (tmp_path / "model" / "report.html").read_text()
    assert len(history(tmp_path / "model")) == found["epochs"]
    assert "Linear probe" in training.score_text(scores)
    assert json.loads((tmp_path / "model" / "scores.json").read_text()) == scores


def test_places_end_up_near_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_textures(tmp_path / "unlabelled", 256, seed=1, labelled=False)
    given = settings(
        tmp_path / "unlabelled", pretrain_epochs=6, batch_size=24, learning_rate=0.003, network={"filters": 16}
    )
    seen = []
    original = contrast_learner.ContrastLearner._compared

    def compared(self: Any, views: Any) -> Any:
        seen.append(original(self, views))
        return seen[-1]

    monkeypatch.setattr(contrast_learner.ContrastLearner, "_compared", compared)
    pretrained.pretrain_alone(pretrained.prepare_alone(given, backend), tmp_path / "model", backend)
    nearer = []
    for vectors_of in (seen[0], seen[-1]):
        first, second = vectors_of["reference"].chunk(2)
        scores = first @ second.T
        apart = (scores.sum() - scores.diagonal().sum()) / (scores.numel() - len(scores))
        nearer.append(float(scores.diagonal().mean() - apart))
    assert len(seen[0]["reference"]) == 2 * 26 and nearer[1] > nearer[0] + 0.1 and nearer[1] > 0.3
    losses = [[float(number) for number in row[1:]] for row in history(tmp_path / "model")]
    assert losses[-1][0] < losses[0][0] and losses[-1][1] < losses[0][1]


def test_a_batch_in_pieces_has_the_gradients_of_the_whole() -> None:
    """With group normalisation, which sees no other patch."""
    network = Network("fusion", 2, 3, {"reference": False, "sources": [{"name": "series", "bands": 1, "series": True}]})
    module = contrast_learner.Contrast(network, (8, 8))
    valid = torch.rand(6, 3, 8, 8) < 0.9
    source = Further(torch.randn(6, 3, 1, 8, 8), valid, torch.zeros(6, 4), torch.arange(3.0).repeat(6, 1))
    views, found = Inputs(torch.randn(6, 2, 8, 8), {"series": source}), []
    for largest in (6, 4, 2):
        fabric = Fabric(accelerator="cpu")
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        how = {"spread": np.ones(2, np.float32), "temperature": 0.5, "size": (8, 8), "warn": print}
        options = Settings(batch_size=3)
        learner = contrast_learner.ContrastLearner(fabric, module, optimizer, options, **how)  # type: ignore[arg-type]
        learner.largest = largest
        loss = learner._gradients(views, {}, 1)
        found.append([loss, *(value.grad.clone() for value in module.parameters() if value.grad is not None)])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_pre_trained_encoder_begins_a_training_and_answers_nothing(tmp_path: Path) -> None:
    make_textures(tmp_path / "unlabelled", 64, seed=1, labelled=False)
    model, _ = alone(tmp_path, tmp_path / "unlabelled", pretrain_epochs=1)
    assert sorted(file.name for file in model.iterdir()) == [
        "model.json",
        "pretraining.csv",
        "report.html",
        "scores.json",
        "weights.safetensors",
    ]
    card = read_any_card(model)
    assert card.task == FEATURES and card.unit == "patch" and not len(card.classes) and card.network.classes == 0
    with pytest.raises(DeepLearningError, match=r"only been pre-trained\. Train with weights="):
        read_card(model)
    labelled = make_textures(tmp_path / "labelled", 24, 12, seed=2)
    plan = training.prepare([labelled], Settings(weights=str(model), device="cpu"), backend)
    assert plan.network.architecture == "cnn" and plan.network.options["filters"] == 8
    assert "last layer" not in plan.initial.note
    module = backend.build(plan.network)
    plan.initial.load_into(module)
    for name, tensor in load_file(model / "weights.safetensors").items():
        assert torch.equal(module.state_dict()[name], tensor)


def test_the_same_seed_and_an_interrupted_run_give_the_same_weights(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    make_textures(tmp_path / "unlabelled", 96, seed=1, labelled=False)
    whole, _ = alone(tmp_path / "whole", tmp_path / "unlabelled")

    def interrupt(done: int, total: int, text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        alone(tmp_path / "cut", tmp_path / "unlabelled", progress=interrupt)
    assert [entry.name for entry in (tmp_path / "cut").iterdir()] == [".model.run"]
    with pytest.raises(DeepLearningError, match="Add -r"):
        alone(tmp_path / "cut", tmp_path / "unlabelled")
    with pytest.raises(DeepLearningError, match=r"temperature was 0\.2, now it is 0\.5"):
        alone(tmp_path / "cut", tmp_path / "unlabelled", resume=True, temperature=0.5)
    cut, said = alone(tmp_path / "cut", tmp_path / "unlabelled", resume=True)
    assert said == ["Pre-training goes on after epoch 2."]
    assert history(whole) == history(cut) and len(history(cut)) == 3
    assert (whole / "weights.safetensors").read_bytes() == (cut / "weights.safetensors").read_bytes()


def test_a_training_that_was_interrupted_does_not_pre_train_again(tmp_path: Path) -> None:
    make_textures(tmp_path / "unlabelled", 64, seed=1, labelled=False)
    labelled = make_textures(tmp_path / "labelled", 24, 12, seed=2)
    given = settings(tmp_path / "unlabelled", pretrain_epochs=2, epochs=2)

    def train(target: str, interrupted: bool, resume: bool = False) -> list[str]:
        texts: list[str] = []

        def progress(done: int, total: int, text: str) -> None:
            texts.append(text)
            if interrupted and text.startswith("Epoch 1"):
                raise KeyboardInterrupt

        plan = training.prepare([labelled], given, backend)
        training.train(plan, tmp_path / target, backend, resume=resume, progress=progress)
        return texts

    assert sum(text.startswith("Pre-training") for text in train("whole", False)) == 2
    with pytest.raises(KeyboardInterrupt):
        train("cut", True)
    assert [text.split(":")[0] for text in train("cut", False, resume=True)] == ["Epoch 2 of 2"]
    whole, cut = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    assert history(tmp_path / "whole") == history(tmp_path / "cut")


@pytest.mark.parametrize(
    ("values", "fragment"),
    (
        ({"architecture": "mlp", "network": {}}, "encoder that sees the surroundings"),
        ({"devices": 2}, "Pre-training runs on one device; got devices=2"),
        ({"nodes": 2}, "got nodes=2"),
        ({"epochs": 3}, "epochs= is for training with labels"),
        ({"augment": ("flip",)}, "augment= is for training with labels"),
    ),
)
def test_what_cannot_be_pre_trained_is_refused(tmp_path: Path, values: dict[str, Any], fragment: str) -> None:
    make_textures(tmp_path / "unlabelled", 64)
    with pytest.raises(DeepLearningError, match=fragment):
        pretrained.prepare_alone(settings(tmp_path / "unlabelled", **values), backend)


def test_a_network_that_fails_with_the_patches_is_refused_before_pre_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*_: Any) -> None:
        raise RuntimeError("The size of tensor a must match")

    monkeypatch.setattr(step, "_learn", learn)
    make_textures(tmp_path / "unlabelled", 64)
    with pytest.raises(DeepLearningError, match=r"must work with patches of 16 x 16 cells; .* does not \(The size of"):
        pretrained.prepare_alone(settings(tmp_path / "unlabelled"), backend)


def test_a_loss_that_is_no_number_and_a_full_memory_end_in_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_textures(tmp_path / "unlabelled", 64)
    original = contrast_learner.paired_loss
    monkeypatch.setattr(contrast_learner, "paired_loss", lambda *values: original(*values) * math.nan)
    with pytest.raises(DeepLearningError, match="The loss must be a number"):
        alone(tmp_path, tmp_path / "unlabelled")
    assert [entry.name for entry in tmp_path.iterdir()] == ["unlabelled"]
    monkeypatch.setattr(contrast_learner, "paired_loss", original)
    forward = contrast_learner.Contrast.forward
    room = 6

    def tight(self: Any, batch: Any) -> Any:
        if len(batch) > room:
            raise RuntimeError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(contrast_learner.Contrast, "forward", tight)
    _, said = alone(tmp_path, tmp_path / "unlabelled", pretrain_epochs=1)
    assert [text.split(" do ")[0] for text in said] == ["16 views of patches", "8 views of patches"]
    room = 1
    with pytest.raises(DeepLearningError, match="2 views of patches must fit the memory of cpu"):
        alone(tmp_path, tmp_path / "unlabelled", overwrite=True)


def test_every_branch_of_a_fusion_network_learns(tmp_path: Path) -> None:
    folder = tmp_path / "unlabelled"
    make_sources(folder, "series", count=60, size=8, absent=0.1)
    plan = pretrained.prepare_alone(
        settings(folder, architecture="fusion", network={}, pretrain_epochs=1, batch_size=18), backend
    )
    own = plan.pretraining
    before = contrast._begun(own.network, own.shape, None, own.settings.seed).trunk.network.state_dict()
    pretrained.pretrain_alone(plan, tmp_path / "model", backend)
    found = load_file(tmp_path / "model" / "weights.safetensors")
    for name in ("inner.encoder.", "inner.branches.auxiliary1.", "inner.branches.series."):
        weights = [key for key in found if key.startswith(name) and key.endswith("weight")]
        assert weights and sum(not torch.equal(found[key], before[key]) for key in weights) > len(weights) / 4
    assert found.keys() <= before.keys()
    labelled = PatchDataset.open(folder)
    started = training.prepare(
        [labelled], Settings(architecture="fusion", weights=str(tmp_path / "model"), device="cpu"), backend
    )
    assert set(found) <= set(started.initial.arrays)


def test_the_probe_reads_what_the_features_show(tmp_path: Path) -> None:
    labelled = make_patches(tmp_path / "patches", "cell", 8, 60)
    plan = training.prepare([labelled], Settings(architecture="fcn_dilated", device="cpu"), backend)
    encoder = backend.Encoder(plan.network, plan.shape, None, plan.settings)
    images, _ = plan.parts["training"].read(np.arange(3))
    assert encoder.features(images).shape == (3, 64 * 7)
    score = linear_probe(plan.parts["training"], plan.parts["validation"], encoder)
    assert score is not None and 0 <= score <= 1
