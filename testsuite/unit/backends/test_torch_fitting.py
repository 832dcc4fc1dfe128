"""Training on problems whose answer is known."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import two_processes
from lightning_fabric import Fabric
from rlearndeep.backends import checkpoint
from rlearndeep.backends import torch as backend
from rlearndeep.backends.machine import is_out_of_memory
from rlearndeep.backends.recipes import STEPWISE
from rlearndeep.backends.running import LARGEST_GRADIENT, NotFinite, range_test, steepest
from rlearndeep.backends.torch import feeding, learner
from rlearndeep.backends.torch.learner import Learner
from rlearndeep.backends.torch.machinery import _strategy, in_company, make_schedule, quietly
from rlearndeep.backends.torch.networks import SEGMENTATION, TRANSFORMER, PerCell, SmallCNN
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.tasks import Measure, ValueTask
from rlearndeep.model import Network
from rlearndeep.scene.bands import Normalization
from safetensors.torch import load_file
from synthetic_patches import make_patches


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def parts(directory: Path, **values: Any) -> tuple[Part, Part]:
    sites = Sites.of([make_patches(directory / "patches", **values)])
    normalization = Normalization.from_statistics("band", sites.statistics)
    return sites.part("training", normalization), sites.part("validation", normalization)


ACCURACY = Measure("accuracy", "accuracy", 1, lambda matrix: float(np.diag(matrix).sum() / max(1, matrix.sum())))


def fitted(
    directory: Path,
    training: Any,
    validation: Any,
    task: str = "class",
    target: Any = None,
    folder: Path | None = None,
    progress: Any = None,
    warn: Any = print,
    initial: Any = None,
    class_weights: tuple[float, ...] = (1.0, 1.0, 1.0),
    unit: str = "cell",
    shape: tuple[int, int] = (4, 4),
    measure: Measure = ACCURACY,
    **values: Any,
) -> Any:
    folder = folder or directory / f"run{len(list(directory.iterdir()))}"
    folder.mkdir(exist_ok=True)
    settings = resolved(
        Settings(**{"architecture": "mlp", "epochs": 3, "device": "cpu", **values}), unit, shape, len(training), task
    )
    network = Network(settings.architecture, 4, 1 if target else 3, dict(settings.network or {}))
    return backend.fit(
        network,
        training,
        validation,
        settings,
        task=task,
        target=target,
        class_weights=np.array(class_weights),
        spread=np.ones(4),
        measure=ValueTask(target).measure if target else measure,
        folder=folder,
        progress=progress or (lambda row: None),
        warn=warn,
        initial=initial,
    )


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result.module.state_dict().values())


def test_the_same_seed_gives_the_same_model_bit_for_bit(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    options = {"architecture": "fcn_dilated", "network": {"filters": 8, "blocks": 2}, "augment": ("flip", "jitter")}
    first, second, other = (fitted(tmp_path, training, validation, seed=seed, **options) for seed in (1, 1, 2))
    assert all(torch.equal(*pair) for pair in zip(tensors(first), tensors(second), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(tensors(first), tensors(other), strict=True))
    assert [row["training_loss"] for row in first.history] == [row["training_loss"] for row in second.history]


def test_the_best_epoch_is_kept_and_a_run_without_progress_ends(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    result = fitted(tmp_path, training, validation, epochs=100, patience=2, learning_rate=0.01)
    assert len(result.history) < 100
    assert len(result.history) == result.best_epoch + 2
    best = max(row["validation_accuracy"] for row in result.history)
    assert result.history[result.best_epoch - 1]["validation_accuracy"] == best


def test_the_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    options = {"learning_rate": 0.004, "scheduler": "none", "seed": 4}
    result = fitted(tmp_path, training, validation, epochs=60, patience=3, **options)
    assert 1 < result.best_epoch < len(result.history)
    alone = fitted(tmp_path, training, None, epochs=result.best_epoch, **options)
    assert all(torch.equal(*pair) for pair in zip(tensors(result), tensors(alone), strict=True))


def test_a_heavier_class_is_said_more_often(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=40)
    images, labels = training.read(np.arange(len(training)))
    shares = []
    for heavy in range(3):
        weights = tuple(1.0 if number == heavy else 0.01 for number in range(3))
        module = fitted(tmp_path, training, None, class_weights=weights, epochs=2).module
        with torch.inference_mode():
            said = module(torch.from_numpy(images)).argmax(dim=1).numpy()
        shares.append((said == heavy).mean() - (labels == heavy).mean())
    assert min(shares) > 0.1


def test_without_validation_all_epochs_are_trained_and_the_last_is_kept(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=20)
    result = fitted(tmp_path, training, None, epochs=4, patience=1)
    assert len(result.history) == result.best_epoch == 4
    assert result.history[0]["validation_accuracy"] is None


@pytest.mark.parametrize("scheduler", ("none", "step", "cosine", "plateau", "onecycle"))
@pytest.mark.parametrize("optimizer", ("adamw", "sgd"))
def test_optimizers_and_schedulers_learn(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    steps = {"step": 2} if scheduler in ("step", "plateau") else {}
    result = fitted(tmp_path, training, validation, optimizer=optimizer, scheduler=scheduler, epochs=4, **steps)
    losses = [row["training_loss"] for row in result.history]
    assert losses[-1] < losses[0]
    rates = [row["learning_rate"] for row in result.history]
    assert (len(set(rates)) == 1) == (scheduler in ("none", "plateau"))


@pytest.mark.parametrize("gamma", (0.5, 0.2))
def test_the_rate_is_multiplied_by_gamma(tmp_path: Path, gamma: float) -> None:
    training, validation = parts(tmp_path, size=4, count=8)
    never_better = replace(ACCURACY, of=lambda matrix: 0.5)
    rates = {}
    for scheduler in ("step", "plateau"):
        options = {"scheduler": scheduler, "step": 1, "gamma": gamma, "learning_rate": 0.01, "patience": 0}
        history = fitted(tmp_path, training, validation, epochs=5, measure=never_better, **options).history
        rates[scheduler] = [row["learning_rate"] / 0.01 for row in history]
    assert rates["step"] == pytest.approx([1, gamma, gamma**2, gamma**3, gamma**4])
    assert rates["plateau"] == pytest.approx([1, 1, 1, gamma, gamma])


@pytest.mark.parametrize("optimizer", ("adamw", "adam", "sgd"))
def test_weights_decay_as_told(tmp_path: Path, optimizer: str) -> None:
    training, _ = parts(tmp_path, size=4, count=20)
    options = {"optimizer": optimizer, "learning_rate": 0.01, "scheduler": "none", "epochs": 20}
    free, held = (fitted(tmp_path, training, None, weight_decay=decay, **options) for decay in (0.0, 3.0))
    lengths = [float(tensors(result)[0].norm()) for result in (free, held)]
    assert lengths[1] < 0.8 * lengths[0]


def test_a_step_is_no_longer_than_the_largest_gradient(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=8, shares=(1.0, 0.0, 0.0))
    training = replace(training, normalization=Normalization("none"))
    options = {"optimizer": "sgd", "momentum": 0.0, "scheduler": "none", "batch_size": 8, "epochs": 1, "augment": ()}
    still, moved = (
        fitted(tmp_path, training, None, learning_rate=rate, weight_decay=0.0, **options) for rate in (1e-12, 1e-3)
    )
    change = torch.cat([(b - a).flatten() for a, b in zip(tensors(still), tensors(moved), strict=True)])
    assert float(change.norm()) == pytest.approx(1e-3 * LARGEST_GRADIENT, rel=1e-3)


def test_convolutions_are_computed_in_the_precision_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, validation = parts(tmp_path, size=4, count=8)
    forward, found = PerCell.forward, set()

    def watched(self: Any, images: torch.Tensor) -> torch.Tensor:
        logits = forward(self, images)
        found.add(logits.dtype)
        return logits

    monkeypatch.setattr(PerCell, "forward", watched)
    for precision, dtype in (("32", torch.float32), ("auto", torch.float32), ("bf16", torch.bfloat16)):
        found.clear()
        fitted(tmp_path, training, validation, precision=precision, epochs=1)
        assert found == {dtype}


def test_training_takes_as_many_threads_as_told(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=8)
    fitted(tmp_path, training, None, epochs=1, nprocs=2)
    assert torch.get_num_threads() == 2
    fitted(tmp_path, training, None, epochs=1, nprocs=1)
    assert torch.get_num_threads() == 1


def test_a_first_layer_of_one_cell_with_a_step_learns(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, unit="patch", size=8, count=8, shares=(1.0, 0.0, 0.0))
    options = {"architecture": "repvgg_a0", "network": {}, "unit": "patch", "shape": (8, 8), "epochs": 1}
    found = fitted(tmp_path, training, None, **options)
    assert np.isfinite(found.history[0]["training_loss"])
    assert found.module.inner.stem.conv_1x1.conv.stride == (2, 2)  # what is saved, exported and predicted with


def test_sums_have_one_order_on_a_cpu_only() -> None:
    for kind in ("cpu", "cuda", "mps"):
        with quietly(torch.device(kind)):
            assert torch.are_deterministic_algorithms_enabled() == (kind == "cpu")
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("optimizer", ("adamw", "adam"))
def test_updating_all_weights_in_one_pass_changes_nothing_but_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    training, _ = parts(tmp_path, size=33, count=8, shares=(1.0, 0.0, 0.0))
    options = {"architecture": "unet", "network": {"encoder": "resnet18"}, "optimizer": optimizer, "epochs": 2}
    made = []

    def counted(*groups: Any, fused: bool | None, **values: Any) -> Any:
        made.append(fused)
        return kind(*groups, **values)

    passed = fitted(tmp_path, training, None, batch_size=4, **options)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[optimizer]
    monkeypatch.setattr(torch.optim, kind.__name__, counted)
    plain = fitted(tmp_path, training, None, batch_size=4, **options)
    assert made == [True]
    for one, other in zip(tensors(passed), tensors(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_cycle_leaves_the_momentum_of_sgd_alone(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=8, shares=(1.0, 0.0, 0.0))
    options = {"optimizer": "sgd", "scheduler": "onecycle", "augment": (), "network": {"dropout": 0.0}}
    results = [fitted(tmp_path, training, None, momentum=value, **options) for value in (0.0, 0.0, 0.95)]
    first, second, fast = (result.history[-1]["training_loss"] for result in results)
    assert first == second > fast
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1, momentum=0.5)
    schedule = make_schedule(optimizer, resolved(Settings(optimizer="sgd"), "cell", (4, 4), 8), 20)
    for _ in range(19):
        optimizer.step()
        schedule.after_step()
        assert optimizer.param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize("epochs", range(1, 13))
def test_a_cycle_of_any_number_of_steps_is_run(tmp_path: Path, epochs: int) -> None:
    training, _ = parts(tmp_path, size=4, count=4, shares=(1.0, 0.0, 0.0))
    result = fitted(tmp_path, training, None, epochs=epochs, batch_size=4, scheduler="onecycle")
    assert len(result.history) == epochs


def test_one_patch_is_enough_for_batch_normalisation(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=1, shares=(1.0, 0.0, 0.0))
    assert len(training) == 1
    result = fitted(tmp_path, training, None, architecture="unet", epochs=1, batch_size=1)
    assert np.isfinite(result.history[0]["training_loss"])


@pytest.mark.parametrize(
    "architecture", sorted({*SEGMENTATION, "fcn_dilated", "cnn", "resnet18", "swin_t"} - {TRANSFORMER})
)
def test_every_architecture_learns_from_odd_patches_and_a_last_batch_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    monkeypatch.setattr(checkpoint.Writer, "write", lambda *_: None)  # half of the time, and tested elsewhere
    unit = "cell" if backend.answers(architecture) == "cell" else "patch"
    training, _ = parts(tmp_path, unit=unit, size=11, count=3, shares=(1.0, 0.0, 0.0))
    options = {"unit": unit, "shape": (11, 11), "batch_size": 2, "epochs": 2, "scheduler": "none", "augment": ()}
    result = fitted(tmp_path, training, None, architecture=architecture, **options)
    losses = [row["training_loss"] for row in result.history]
    assert len(losses) == 2 and np.isfinite(losses).all() and losses[0] != losses[1]
    with torch.inference_mode():
        assert result.module(torch.from_numpy(training.read(np.arange(1))[0])).isfinite().all()


def test_a_loss_that_is_no_number_ends_the_run_with_the_epoch(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)

    class Broken:
        def __len__(self) -> int:
            return len(training)

        normalization, unlabelled = training.normalization, training.unlabelled

        def steps(self, size: int) -> int:
            return training.steps(size)

        def raw_batches(self, size: int, order: Any, share: Any) -> Any:
            for values, valid, labels in training.raw_batches(size, order, share):
                yield (values * np.float32(np.nan) if order[1] == 1 else values), valid, labels

    with pytest.raises(DeepLearningError, match=r"nan in epoch 2 with learning_rate=.* a smaller learning_rate="):
        fitted(tmp_path, Broken(), validation, folder=tmp_path / "run")
    assert backend.epochs_done(tmp_path / "run") == 0  # going on would come to the same


def test_nothing_is_printed_and_the_files_are_those_of_one_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    rows: list[dict[str, Any]] = []
    result = fitted(tmp_path, training, validation, folder=tmp_path / "run", progress=rows.append)
    assert capfd.readouterr() == ("", "")
    assert rows == result.history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patches", "run"]
    assert sorted(path.suffix for path in (tmp_path / "run").iterdir()) == [".arrays", ".arrays", ".json"]


def test_ctrl_c_is_passed_on(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    stopped = types.SimpleNamespace(steps=training.steps, raw_batches=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, _Sized(stopped), validation)


class _Sized:
    def __init__(self, inner: Any) -> None:
        self.steps, self.raw_batches = inner.steps, inner.raw_batches

    def __len__(self) -> int:
        return 12


# Batch normalisation, dropout and augmentation: everything whose state could be lost.
_STATEFUL = {"architecture": "cnn", "network": {"filters": 4, "blocks": 1}, "augment": ("flip", "noise"), "epochs": 5}


class _Stopped(Exception):
    """The end of a process."""


def _stop_after(epoch: int) -> Any:
    def progress(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise _Stopped

    return progress


def _curve(result: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in result.history]


def _assert_equal(first: Any, second: Any) -> None:
    assert _curve(first) == _curve(second)
    assert first.best_epoch == second.best_epoch
    assert all(torch.equal(*pair) for pair in zip(tensors(first), tensors(second), strict=True))


@pytest.mark.parametrize(
    ("optimizer", "scheduler"), (("adamw", "onecycle"), ("sgd", "plateau"), ("adam", "step"), ("adamw", "cosine"))
)
def test_a_run_that_goes_on_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, optimizer: str, scheduler: str
) -> None:
    training, validation = parts(tmp_path, unit="patch", size=8, count=40)
    steps = {"step": 1} if scheduler in ("step", "plateau") else {}
    options = {**_STATEFUL, "optimizer": optimizer, "scheduler": scheduler, **steps, "seed": 3}
    whole = fitted(tmp_path, training, validation, **options)
    for stop in (2, 4):
        with pytest.raises(_Stopped):
            fitted(tmp_path, training, validation, folder=tmp_path / "run", progress=_stop_after(stop), **options)
        assert backend.epochs_done(tmp_path / "run") == stop
    _assert_equal(fitted(tmp_path, training, validation, folder=tmp_path / "run", **options), whole)
    _assert_equal(fitted(tmp_path, training, validation, folder=tmp_path / "run", **options), whole)  # nothing left


@pytest.mark.parametrize("moment", ("batch", "arrays", "state"))
def test_an_end_at_any_moment_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    training, validation = parts(tmp_path, unit="patch", size=8, count=40)
    folder = tmp_path / "run"
    whole = fitted(tmp_path, training, validation, **_STATEFUL)
    with monkeypatch.context() as patch:
        _end_in_epoch(4, moment, patch)
        with pytest.raises(_Stopped):
            fitted(tmp_path, training, validation, folder=folder, **_STATEFUL)
    assert backend.epochs_done(folder) in (2, 3)  # that of an epoch is written during the next one
    _assert_equal(fitted(tmp_path, training, validation, folder=folder, **_STATEFUL), whole)


def _end_in_epoch(number: int, moment: str, patch: pytest.MonkeyPatch) -> None:
    """End in the middle of a batch, or of writing a file of the checkpoint."""
    owner, name = {
        "batch": (Learner, "_step"),
        "arrays": (np, "save"),
        "state": (checkpoint, "write_text"),
    }[moment]
    whole, epoch = getattr(owner, name), Learner.epoch
    current = [0]

    def counted(self: Any, index: int, *values: Any) -> Any:
        current[0] = index + 1
        return epoch(self, index, *values)

    def limited(*values: Any, **options: Any) -> Any:
        if current[0] == number:
            raise _Stopped
        return whole(*values, **options)

    patch.setattr(Learner, "epoch", counted)
    patch.setattr(owner, name, limited)


def test_a_full_disk_costs_the_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = parts(tmp_path, unit="patch", size=8, count=40)
    folder, messages = tmp_path / "run", []
    whole = fitted(tmp_path, training, validation, **_STATEFUL)
    write = checkpoint._write_arrays

    def limited(file: Path, values: Any) -> None:
        if "-1." not in file.name:
            (file.parent / "half.part").write_bytes(b"x")
            raise OSError(28, "No space left on device")
        write(file, values)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write_arrays", limited)
        result = fitted(tmp_path, training, validation, folder=folder, warn=messages.append, **_STATEFUL)
    _assert_equal(result, whole)
    assert len(messages) == 4 and "No space left" in messages[0] and "\n" not in messages[0]
    assert backend.epochs_done(folder) == 1 and not list(folder.glob("*.part"))
    _assert_equal(fitted(tmp_path, training, validation, folder=folder, **_STATEFUL), whole)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    folder = tmp_path / "run"
    with pytest.raises(_Stopped):
        fitted(tmp_path, training, validation, folder=folder, progress=_stop_after(2))
    state = (folder / checkpoint.STATE).read_text()
    for text in (
        "{",
        "[]",
        state.replace("rest-2", "../../rest-2"),
        state.replace('"tensor:": "0"', '"tensor:": "x"'),
    ):
        (folder / checkpoint.STATE).write_text(text)
        with pytest.raises(DeepLearningError, match="damaged") as caught:
            fitted(tmp_path, training, validation, folder=folder)
        assert "\n" not in str(caught.value)
    (folder / checkpoint.STATE).write_text(state)
    for file in folder.glob("rest-*"):
        file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DeepLearningError, match="damaged"):
        fitted(tmp_path, training, validation, folder=folder)


def test_a_batch_that_does_not_fit_is_computed_in_pieces_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, validation = parts(tmp_path, size=4, count=40, unlabelled=0.4)
    options = {"network": {"hidden": [8], "dropout": 0.0}, "batch_size": 12, "epochs": 2}
    whole = fitted(tmp_path, training, validation, **options)
    forward, messages, sizes = PerCell.forward, [], []

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(PerCell, "forward", limited)
    pieces = fitted(tmp_path, training, validation, warn=messages.append, **options)
    assert len(messages) == 2 and "6 patches" in messages[1] and max(sizes) <= 4
    for first, second in zip(tensors(whole), tensors(pieces), strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    for one, other in zip(whole.history, pieces.history, strict=True):
        assert one["training_loss"] == pytest.approx(other["training_loss"], rel=1e-5)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-5)


def test_gradients_of_pieces_before_one_that_does_not_fit_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, _ = parts(tmp_path, size=4, count=24, shares=(1.0, 0.0, 0.0))
    options = {"network": {"hidden": [8], "dropout": 0.0}, "batch_size": 12, "epochs": 1, "optimizer": "sgd"}
    whole = fitted(tmp_path, training, None, **options)
    forward, sizes = PerCell.forward, []

    def fuller_at_the_second_piece(self: Any, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(sizes) in (1, 3):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(PerCell, "forward", fuller_at_the_second_piece)
    pieces = fitted(tmp_path, training, None, warn=lambda _: None, **options)
    assert sizes == [12, 6, 6, *[3] * 8]
    for first, second in zip(tensors(whole), tensors(pieces), strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rate", [0.001, "auto"])
def test_a_run_in_pieces_goes_on_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float | str) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    forward, said = PerCell.forward, []

    def limited(self: Any, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(PerCell, "forward", limited)
    options = {"folder": tmp_path / "run", "warn": said.append, "batch_size": 8, "epochs": 2, "learning_rate": rate}
    with pytest.raises(_Stopped):
        fitted(tmp_path, training, validation, progress=_stop_after(1), **options)
    assert len(said) == 1
    fitted(tmp_path, training, validation, **options)
    assert len(said) == 1


def test_one_patch_that_does_not_fit_ends_the_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = parts(tmp_path, size=4, count=10)

    def full(*_: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(PerCell, "forward", full)
    with pytest.raises(DeepLearningError, match="memory of cpu") as caught:
        fitted(tmp_path, training, validation, warn=lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ("optimizer", "augmentation", "batch", "network"))
def test_memory_that_ends_elsewhere_ends_the_run_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    training, validation = parts(tmp_path, size=4, count=10)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    owner, name = {
        "optimizer": (torch.optim.AdamW, "step"),
        "augmentation": (learner, "augment"),
        "batch": (feeding, "normalized"),
        "network": (Fabric, "setup"),
    }[place]
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(DeepLearningError, match="network, its optimizer and 8 patches must fit the memory of cpu"):
        fitted(tmp_path, training, validation, batch_size=8)


@pytest.mark.parametrize(
    "message",
    (
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "MPS backend out of memory (MPS allocated: 1 GB)",
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
    ),
)
def test_libraries_have_words_of_their_own_for_a_lack_of_memory(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))


def test_a_pass_that_failed_does_not_count_for_batch_normalisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, validation = parts(tmp_path, unit="patch", size=8, count=40)
    options = {"architecture": "cnn", "network": {"filters": 4, "blocks": 1, "dropout": 0.0}, "augment": ("none",)}
    options.update(unit="patch", shape=(8, 8), batch_size=8, epochs=2)
    whole = fitted(tmp_path, training, validation, **options)
    forward, failed = SmallCNN.forward, []

    def late(self: Any, images: torch.Tensor) -> torch.Tensor:
        logits = forward(self, images)
        if self.training and len(failed) < 2:
            failed.append(len(images))
            if len(images) == 8:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return logits

    def at_once(self: Any, error: RuntimeError, patches: int) -> None:
        assert is_out_of_memory(error) and patches == 8

    monkeypatch.setattr(SmallCNN, "forward", late)
    monkeypatch.setattr(Learner, "_shrink", at_once)  # memory suffices the second time
    again = fitted(tmp_path, training, validation, **options)
    assert failed == [8, 8]
    _assert_equal(whole, again)


def test_other_errors_are_no_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, validation = parts(tmp_path, size=4, count=10)

    def broken(*_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(PerCell, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        fitted(tmp_path, training, validation)


def test_a_range_test_finds_a_rate_that_learns_and_forgets_what_it_did(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    options = {"epochs": 4, "batch_size": 4, "seed": 2}
    found = fitted(tmp_path, training, validation, learning_rate="auto", **options)
    assert 1e-4 < found.learning_rate < 0.5
    assert found.history[-1]["validation_accuracy"] > 0.8
    _assert_equal(found, fitted(tmp_path, training, validation, learning_rate=found.learning_rate, **options))
    with pytest.raises(_Stopped):
        fitted(
            tmp_path,
            training,
            validation,
            learning_rate="auto",
            folder=tmp_path / "run",
            progress=_stop_after(2),
            **options,
        )
    again = fitted(tmp_path, training, validation, learning_rate="auto", folder=tmp_path / "run", **options)
    assert again.learning_rate == found.learning_rate
    _assert_equal(found, again)


def test_the_steepest_fall_is_found() -> None:
    rates = [10.0**power for power in range(-20, 20)]
    losses = [1 / (1 + np.exp(power)) for power in range(-20, 20)]
    assert steepest(rates, losses) == pytest.approx(1.0, rel=20)
    assert steepest(rates[:3], [3.0, 2.0, 1.0]) in rates[:3]
    assert steepest(rates[:1], [1.0]) == rates[0]


@pytest.mark.parametrize("end", (float("nan"), float("inf")))
def test_a_rate_at_which_the_loss_is_no_number_is_not_chosen(end: float) -> None:
    rates: list[float] = []

    def loss_at(rate: float) -> float:
        """Falls fastest at a rate of 0.001; what a rate of more than 0.1 does shows at the next step."""
        rates.append(rate)
        return end if len(rates) > 1 and rates[-2] > 0.1 else 1 / (1 + rate / 0.001)

    found = range_test(loss_at)
    assert 1e-4 < found < 1e-2
    assert found < max(rates[:-2])
    with pytest.raises(NotFinite, match="at the smallest rates of learning_rate=auto"):
        range_test(lambda rate: end)


def test_a_rate_from_which_the_loss_is_no_number_at_once_is_not_chosen() -> None:
    rates: list[float] = []

    def loss_at(rate: float) -> float:
        rates.append(rate)
        return float("nan") if len(rates) > 30 else 1.0 - rate

    assert range_test(loss_at) <= rates[28]


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    result = fitted(
        tmp_path, training, validation, scheduler="plateau", step=1, epochs=12, patience=0, learning_rate=0.05
    )
    scores = [row["validation_accuracy"] for row in result.history]
    rates = [row["learning_rate"] for row in result.history]
    assert any(later <= max(scores[:number]) for number, later in enumerate(scores) if number)
    assert rates[0] == 0.05 and rates[-1] < 0.05


def test_the_log_of_tensorboard_has_a_value_per_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training, validation = parts(tmp_path, size=4, count=20)
    result = fitted(tmp_path, training, validation, tensorboard=str(tmp_path / "log"))
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    for name in ("training_loss", "validation_loss", "validation_accuracy", "learning_rate"):
        assert [event.step for event in events.Scalars(name)] == [1, 2, 3]
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name] for row in result.history])


def test_a_log_that_cannot_be_written_ends_in_one_line(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    (tmp_path / "log").write_text("no directory")
    with pytest.raises(DeepLearningError, match=r"tensorboard= must be writable; '.*log' is not"):
        fitted(tmp_path, training, validation, tensorboard=str(tmp_path / "log"))


def test_a_disk_that_is_full_costs_the_log_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    written = RecordWriter.write

    def write(self: Any, data: bytes) -> None:
        if b"training_loss" in data:
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, data)

    training, validation = parts(tmp_path, size=4, count=20)
    monkeypatch.setattr(RecordWriter, "write", write)
    told: list[str] = []
    result = fitted(tmp_path, training, validation, tensorboard=str(tmp_path / "log"), warn=told.append)
    assert len(result.history) == 3
    assert len(told) == 1 and "No space left on device" in told[0] and "ends before epoch 1" in told[0]


def test_a_log_does_not_load_tensorflow(tmp_path: Path) -> None:
    code = """
import sys
from rlearndeep.backends.scalars import open_log
open_log(sys.argv[1], 0, print).write({"epoch": 1, "loss": 0.5})
assert "tensorflow" not in sys.modules
"""
    env = {**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], env=env, check=True)


def test_a_missing_tensorboard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    settings = resolved(Settings(architecture="mlp", tensorboard="log", device="cpu"), "cell", (4, 4), 10)
    with pytest.raises(DeepLearningError, match="package 'tensorboard'"):
        backend.check(Network("mlp", 4, 3), settings)


def test_two_processes_learn_what_one_does_with_the_double_batch(tmp_path: Path) -> None:
    script = _script(tmp_path, devices=2, nodes=1)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--local-addr", "127.0.0.1", *script]  # the name of the machine need not lead to it
    with _process(command) as both:
        _assert_learned_as_one(tmp_path, both)


def test_two_machines_learn_what_one_does_with_the_double_batch(tmp_path: Path) -> None:
    command = [sys.executable, *_script(tmp_path, devices=1, nodes=2)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "LOCAL_RANK": "0"}
    with _process(command, NODE_RANK="1", **place) as helper, _process(command, NODE_RANK="0", **place) as first:
        _assert_learned_as_one(tmp_path, first)
        assert helper.communicate() == ("", "") and helper.returncode == 0


def _script(directory: Path, devices: int, nodes: int) -> list[str]:
    """Of processes that learn from a few patches with batches of 4; it writes ``two.safetensors``."""
    make_patches(directory / "patches", size=4, count=50, unlabelled=0.4)
    script = [two_processes.__file__, directory / "patches", directory / "two.safetensors", devices, nodes, 4]
    return list(map(str, script))


def _process(command: list[str], **env: str) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _assert_learned_as_one(directory: Path, first: subprocess.Popen) -> None:
    printed, errors = first.communicate()
    assert first.returncode == 0, errors
    assert [line.split()[0] for line in printed.splitlines()] == ["1", "2", "3"]  # the helper is silent
    two_processes.main(directory / "patches", directory / "one.safetensors", 1, 1, 8)
    one, two = (load_file(directory / f"{name}.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-6, rtol=1e-5)


def test_a_helper_whose_first_process_is_killed_ends_in_silence(tmp_path: Path) -> None:
    with _process([sys.executable, *_script(tmp_path, devices=2, nodes=1), "100000"]) as first:
        assert first.stdout and first.stderr
        assert first.stdout.readline().startswith("1 ")
        first.kill()
        assert first.stderr.read() == ""  # which the helper shares, so it has ended, too


def test_the_end_of_a_helper_is_told_in_one_line() -> None:
    settings = resolved(Settings(devices=2, device="cpu"), "cell", (4, 4), 8)
    lost = RuntimeError("[gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
    with pytest.raises(DeepLearningError, match="devices=2 and nodes=1 must go on"), in_company(settings):
        raise lost
    with pytest.raises(RuntimeError, match="shapes"), in_company(settings):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_loss_that_is_no_number_is_told_by_the_first_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolved(Settings(devices=2, device="cpu"), "cell", (4, 4), 8)
    with pytest.raises(NotFinite), in_company(settings):
        raise NotFinite("The loss must be a number.")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with in_company(settings):
        raise NotFinite("The loss must be a number.")


# What srun, mpirun, torchrun of an outer program, or Lightning tell a process that is one of several.
_NUMBERED = (
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0", "SLURM_JOB_ID": "12"},
    {"RANK": "1"},
    {"LOCAL_RANK": "1"},
    {"NODE_RANK": "1"},
)


@pytest.mark.parametrize("numbers", _NUMBERED, ids=lambda numbers: next(iter(numbers)))
def test_one_of_several_trainings_that_a_scheduler_numbers_is_nobodys_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, str]
) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    expected = fitted(tmp_path, training, validation)
    for name, value in numbers.items():
        monkeypatch.setenv(name, value)
    rows: list[dict[str, Any]] = []
    result = fitted(tmp_path, training, validation, folder=tmp_path / "run", progress=rows.append)
    _assert_equal(result, expected)
    assert rows == result.history and backend.epochs_done(tmp_path / "run") == 3


@pytest.mark.parametrize(
    ("devices", "env", "reason"),
    (
        (2, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, "ntasks=4"),
        (1, {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "world size (2)"),
    ),
)
def test_other_processes_than_the_options_say_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, env: dict[str, str], reason: str
) -> None:
    training, _ = parts(tmp_path, size=4, count=8)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeepLearningError, match=f"devices= and nodes= must say .* got {devices} and 1 .*") as caught:
        fitted(tmp_path, training, None, devices=devices)
    assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_machines_on_which_nothing_starts_the_tool_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, _ = parts(tmp_path, size=4, count=8)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(DeepLearningError, match=r"torchrun or srun started; got 1 and 2 \(none of them started"):
        fitted(tmp_path, training, None, nodes=2)


class _OnGPU(torch.Tensor):
    """A tensor that NumPy cannot see where it is."""

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)

    def numpy(self) -> Any:  # type: ignore[override]
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


def test_sums_over_the_processes_of_gpus_are_fetched_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    expected = fitted(tmp_path, training, validation)
    over_processes = Learner._over_processes
    monkeypatch.setattr(Learner, "_over_processes", lambda *given: over_processes(*given).as_subclass(_OnGPU))
    _assert_equal(fitted(tmp_path, training, validation), expected)


@pytest.mark.parametrize("architecture", STEPWISE)
def test_layers_that_are_not_used_do_not_stop_several_processes(architecture: str) -> None:
    settings = resolved(Settings(architecture=architecture, devices=2, device="cpu"), "cell", (16, 16), 10)
    assert _strategy(settings) == "ddp_find_unused_parameters_true"
    assert _strategy(replace(settings, architecture="fcn_dilated")) == "ddp"
    assert _strategy(replace(settings, devices=1)) == "auto"
