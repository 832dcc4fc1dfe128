"""What is settled before an encoder learns without labels; no framework."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning import pretraining
from rlearndeep.learning.feeding import Sites
from rlearndeep.learning.options import Settings, from_options, resolved
from rlearndeep.learning.pretraining import gathered, outcome_text, settled
from rlearndeep.learning.probe import linear_probe
from rlearndeep.learning.resuming import Done
from rlearndeep.learning.sources import REFERENCE_ALONE
from rlearndeep.model import Network
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from synthetic_patches import make_patches


class Means:
    """An encoder whose features are the mean of each band."""

    def features(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(-2, -1))


def plan(datasets: list[PatchDataset], **values: Any) -> pretraining.Pretraining:
    paths = tuple(str(dataset.path) for dataset in datasets)
    given = Settings(architecture="cnn", pretrain="simclr", unlabelled=paths, **values)
    chosen = resolved(given, "patch", (8, 8), 20)
    sites = gathered(paths, datasets[0].manifest, REFERENCE_ALONE)
    part = pretraining.Part(sites, Normalization("none"), ())
    backend = types.SimpleNamespace(check_pretraining=lambda network, options, size: None)
    return settled(given, chosen, Network("cnn", 4, 3), part, backend, np.ones(4), None)  # type: ignore[arg-type]


def numbers(places: pretraining.Places) -> list[int]:
    return sorted(int(number) for _, _, some in places.raw_batches(7) for number in some)


def test_patches_of_a_validation_or_test_part_are_left_out_and_a_tenth_is_held_out(tmp_path: Path) -> None:
    labelled = make_patches(tmp_path / "labelled", "cell", 8, 60)
    other = make_patches(tmp_path / "other", "patch", 8, 40, shares=(1.0, 0.0, 0.0), seed=3)
    made = plan([labelled, other])
    training, held = numbers(made.training), numbers(made.held_out)
    expected = [*labelled.positions("training"), *(other.positions("training") + len(labelled))]
    assert sorted(training + held) == sorted(map(int, expected)) and not set(training) & set(held)
    assert len(held) == 8 and made.training.unlabelled == -1
    assert numbers(plan([labelled, other]).held_out) == held
    assert numbers(plan([labelled, other], seed=2).held_out) != held
    values, valid, _ = next(made.training.raw_batches(100))
    assert values.shape == (len(training), 4, 8, 8) and valid.shape == (len(training), 8, 8)
    assert "68 patches of 8 x 8 cells without labels (8 held out)" in made.text()


def test_what_is_unsaid_follows_from_the_patches(tmp_path: Path) -> None:
    other = make_patches(tmp_path / "other", "patch", 8, 400, shares=(1.0, 0.0, 0.0))
    made = plan([other], learning_rate="auto", patience=1, tensorboard="logs")
    assert (made.settings.batch_size, made.settings.epochs, made.settings.temperature) == (45, 100, 0.2)
    assert made.settings.learning_rate == 0.001 and made.settings.patience == 33
    assert made.settings.tensorboard == "logs/pretraining"
    assert plan([other], batch_size=16, pretrain_epochs=3).settings.epochs == 3
    assert made.summary()["patches"] == 360 and made.summary()["held_out"] == 40


def test_patches_that_cannot_be_learned_from_are_refused(tmp_path: Path) -> None:
    few = make_patches(tmp_path / "few", "patch", 8, 20)
    large = make_patches(tmp_path / "large", "patch", 12, 60)
    bands = make_patches(tmp_path / "bands", "patch", 8, 60, bands=3)
    for datasets, fragment in (
        ([few], "at least 32 patches to tell apart; .*few' has 12"),
        ([few, large], "same patch size; .*few' has .8, 8., .*large' has .12, 12."),
        ([few, bands], r"same bands; reference of '.*bands' has 3 \[b0 .*, that of the first directory 4 \["),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            plan(datasets)
    with pytest.raises(DeepLearningError, match=r"holds a dataset\.json"):
        gathered([str(tmp_path / "none")], few.manifest, REFERENCE_ALONE)


def test_options_of_pre_training_belong_together() -> None:
    for options, fragment in (
        ({"pretrain": "simclr"}, "no unlabelled="),
        ({"unlabelled": "a,b"}, "unlabelled= is for pre-training"),
        ({"pretrain_epochs": "3"}, "pretrain_epochs= is for pre-training"),
        ({"temperature": "0.5"}, "temperature= is for pre-training"),
        ({"pretrain": "simclr", "unlabelled": "a", "temperature": "0"}, "temperature= must be a number from 0.01"),
        ({"pretrain": "moco", "unlabelled": "a"}, "one of none, simclr"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            from_options(options)
    made = from_options({"pretrain": "simclr", "unlabelled": "a,b", "freeze": "encoder"})
    assert made.unlabelled == ("a", "b") and made.freeze == "encoder"
    assert resolved(made, "cell", (32, 32), 50).encoder_rate == 0.1
    slower = from_options({"pretrain": "simclr", "unlabelled": "a", "encoder_rate": "0.5"})
    assert resolved(slower, "cell", (32, 32), 50).encoder_rate == 0.5
    assert resolved(Settings(), "cell", (32, 32), 50).encoder_rate == 1.0


@pytest.mark.parametrize(
    ("unit", "task"), (("cell", "class"), ("patch", "class"), ("patch", "presence"), ("cell", "value"))
)
def test_the_probe_reads_the_labels_of_each_task(tmp_path: Path, unit: str, task: str) -> None:
    sites = Sites.of([make_patches(tmp_path / "patches", unit, 4, 200, task=task)])
    parts = [
        sites.part(name, Normalization.from_statistics("band", sites.statistics)) for name in ("training", "validation")
    ]
    score = linear_probe(*parts, Means())
    assert score is not None and score > 0.9
    assert linear_probe(parts[0], parts[1].sample(0), Means()) is None


def test_features_without_meaning_score_low(tmp_path: Path) -> None:
    sites = Sites.of([make_patches(tmp_path / "patches", "patch", 4, 200)])
    parts = [sites.part(name, Normalization("none")) for name in ("training", "validation")]
    noise = types.SimpleNamespace(features=lambda images: np.random.default_rng(1).normal(size=(len(images), 3)))
    score = linear_probe(*parts, noise)
    assert score is not None and score < 0.6


def test_what_came_of_it_is_told(tmp_path: Path) -> None:
    probe = {"score": "f1_macro", "pretrained": 0.91234, "random": 0.5}
    text = outcome_text({"epochs": 9, "best_epoch": 7, "loss": 1.5, "linear_probe": probe})
    assert text.splitlines() == [
        "Pre-training: epoch 7 of 9, loss 1.5 of patches held out",
        "Linear probe of the encoder, validation part: F1 macro 0.9123 with pre-training, 0.5 with random weights",
    ]
    assert outcome_text({"epochs": 9, "best_epoch": 7, "loss": 1.5, "linear_probe": None}).count("\n") == 0


def test_how_far_a_run_has_come(tmp_path: Path) -> None:
    backend = types.SimpleNamespace(epochs_done=lambda folder: {tmp_path: 0, tmp_path / "pretraining": 4}[folder])
    assert pretraining.done_of(backend, tmp_path) == Done(4, "Pre-training")  # type: ignore[arg-type]
    backend = types.SimpleNamespace(epochs_done=lambda folder: {tmp_path: 2, tmp_path / "pretraining": 4}[folder])
    assert pretraining.done_of(backend, tmp_path) == Done(2)  # type: ignore[arg-type]


def test_patches_over_the_test_part_are_told_of(tmp_path: Path) -> None:
    """The test patch lies from 0 to 80 map units; one of the others touches its edge, one lies 1 unit over it."""
    labelled = make_patches(tmp_path / "labelled", "patch", 8, 60)
    places = make_patches(tmp_path / "places", "patch", 8, 60, shares=(1.0, 0.0, 0.0))
    for dataset, east in ((labelled, [1000.0] * 60), (places, [120.0, 119.0, *[500.0] * 58])):
        index = np.array(dataset.index)
        index["east"], index["north"] = east, 40
        if dataset is labelled:
            index["east"][dataset.positions("test")] = 40
        np.save(dataset.path / "index.npy", index)
    opened = [PatchDataset.open(dataset.path) for dataset in (places, labelled)]
    found = list(pretraining.of_ground(plan(opened[:1]), opened[1:]))
    assert len(found) == 1 and found[0].startswith("1 patches of unlabelled= lie over")
    assert not list(pretraining.of_ground(plan(opened[1:]), opened[1:]))
