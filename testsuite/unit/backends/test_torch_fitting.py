"""Training on problems whose answer is known."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.model import Network
from rlearndeep.scene.bands import Normalization
from synthetic_patches import make_patches


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def parts(directory: Path, **values: Any) -> tuple[Part, Part]:
    sites = Sites.of([make_patches(directory / "patches", **values)])
    normalization = Normalization.from_statistics("band", sites.statistics)
    return sites.part("training", normalization), sites.part("validation", normalization)


def fitted(directory: Path, training: Any, validation: Any, **values: Any) -> Any:
    settings = resolved(
        Settings(**{"architecture": "mlp", "epochs": 3, "device": "cpu", **values}), "cell", (4, 4), len(training)
    )
    network = Network(settings.architecture, 4, 3, dict(settings.network or {}))
    rows: list[dict[str, Any]] = []
    result = backend.fit(
        network,
        training,
        validation,
        settings,
        class_weights=np.ones(3),
        spread=np.ones(4),
        score=lambda matrix: float(np.diag(matrix).sum() / max(1, matrix.sum())),
        folder=directory,
        progress=rows.append,
    )
    assert rows == result.history
    return result


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
    best = max(row["validation_f1_macro"] for row in result.history)
    assert result.history[result.best_epoch - 1]["validation_f1_macro"] == best


def test_without_validation_all_epochs_are_trained_and_the_last_is_kept(tmp_path: Path) -> None:
    training, _ = parts(tmp_path, size=4, count=20)
    result = fitted(tmp_path, training, None, epochs=4, patience=1)
    assert len(result.history) == result.best_epoch == 4
    assert result.history[0]["validation_f1_macro"] is None


@pytest.mark.parametrize("scheduler", ("none", "step", "cosine", "plateau", "onecycle"))
@pytest.mark.parametrize("optimizer", ("adamw", "sgd"))
def test_optimizers_and_schedulers_learn(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    training, validation = parts(tmp_path, size=4, count=40)
    result = fitted(tmp_path, training, validation, optimizer=optimizer, scheduler=scheduler, epochs=4, step=2)
    losses = [row["training_loss"] for row in result.history]
    assert losses[-1] < losses[0]
    rates = [row["learning_rate"] for row in result.history]
    assert (len(set(rates)) == 1) == (scheduler in ("none", "plateau"))


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


def test_a_loss_that_is_no_number_ends_the_run_with_the_epoch(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)

    class Broken:
        def __len__(self) -> int:
            return len(training)

        def steps(self, size: int) -> int:
            return training.steps(size)

        def batches(self, size: int, order: Any) -> Any:
            for images, labels in training.batches(size, order):
                yield (images * np.float32(np.nan) if order[1] == 1 else images), labels

    with pytest.raises(DeepLearningError, match="epoch 2"):
        fitted(tmp_path, Broken(), validation)


def test_nothing_is_printed_and_no_file_is_left(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    training, validation = parts(tmp_path, size=4, count=20)
    before = sorted(path.name for path in tmp_path.iterdir())
    fitted(tmp_path, training, validation)
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_reach_of_a_network_is_how_far_it_looks() -> None:
    images = np.random.default_rng(1).normal(size=(8, 1, 32, 32)).astype(np.float32)
    for distance in (0, 3, 7):
        convolution = torch.nn.Conv2d(1, 2, 2 * distance + 1, padding="same", bias=False)
        torch.nn.init.normal_(convolution.weight)
        assert backend.reach(convolution.eval(), images) == distance


def test_ctrl_c_is_passed_on(tmp_path: Path) -> None:
    training, validation = parts(tmp_path, size=4, count=20)

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    stopped = types.SimpleNamespace(steps=training.steps, batches=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, _Sized(stopped), validation)


class _Sized:
    def __init__(self, inner: Any) -> None:
        self.steps, self.batches = inner.steps, inner.batches

    def __len__(self) -> int:
        return 12
