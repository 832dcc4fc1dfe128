"""From patches to a model directory, without a framework: the back-end here is a table of means."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning import report, training
from rlearndeep.learning.exporting import export
from rlearndeep.learning.feeding import Site
from rlearndeep.learning.options import Settings
from rlearndeep.learning.pretrained import prepare_alone
from rlearndeep.learning.resuming import finished, record_of
from rlearndeep.model import read_card
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.inputs import Inputs
from synthetic_patches import CATEGORIES, make_patches, make_sources


class Table:
    """Says class k with a score that grows with band k."""

    device, precision, pixels_per_batch = "cpu", "32", 5000
    feature_weights = np.ones(4, dtype=np.float32)

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def predict(self, batch: np.ndarray) -> np.ndarray:
        assert batch.size <= 4 * max(self.pixels_per_batch, batch[0, 0].size)
        scores = np.exp(batch[:, self.order])
        scores = scores / scores.sum(axis=1, keepdims=True)
        return scores.astype(np.float32)

    def predict_with_features(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.predict(batch), batch


def fake_backend(
    order: tuple[int, ...] = (0, 1, 2), error: Exception | None = None, epochs: int = 3, seconds: float = 0.1
) -> types.ModuleType:
    backend = types.ModuleType("rlearndeep.backends.torch")

    def fit(network: Any, training: Any, validation: Any, options: Any, **values: Any) -> Any:
        if error:
            raise error
        history = []
        for epoch in range(1, epochs + 1):
            row = {"epoch": epoch, "training_loss": 1 / epoch, "validation_loss": None, "validation_f1_macro": None}
            row |= {"learning_rate": 0.1, "seconds": seconds * epoch}
            if validation is not None:
                row |= {"validation_loss": 1.0, "validation_f1_macro": epoch / (epochs + 1)}
            history.append(row)
            values["progress"](row)
        return types.SimpleNamespace(
            module=None, history=history, best_epoch=2, device="cpu", precision="32-true", learning_rate=0.1
        )

    backend.__dict__.update(
        FILE="weights.safetensors",
        answers=lambda architecture: "patch" if architecture == "resnet18" else "cell",
        check=lambda network, options, task, size=None: None,
        check_name=lambda architecture: None,
        epochs_done=lambda folder: int((folder / "done").read_text()) if (folder / "done").is_file() else 0,
        initial_weights=lambda weights, target: None,
        Target=lambda *values: values,
        stride=lambda network: 1,
        largest=lambda network: None,
        versions=lambda: {"torch": "0"},
        save=lambda module, file: file.write_bytes(b"weights"),
        load=lambda *_: Table(list(order)),
        fit=fit,
    )
    return backend


def trained(directory: Path, backend: Any = None, **values: Any) -> dict[str, Any]:
    backend = backend or fake_backend()
    dataset = make_patches(directory / "patches", **values)
    plan = training.prepare([dataset], Settings(), backend)
    return training.train(plan, directory / "model", backend, command="r.learn.deep.train ...", overwrite=True)


def test_a_model_directory_holds_everything(tmp_path: Path) -> None:
    scores = trained(tmp_path)
    model = tmp_path / "model"
    assert sorted(file.name for file in model.iterdir()) == [
        "history.csv",
        "model.json",
        "novelty.safetensors",
        "report.html",
        "scores.json",
        "weights.safetensors",
    ]
    assert json.loads((model / "scores.json").read_text()) == scores
    card = read_card(model)
    assert card.classes.categories.tolist() == list(CATEGORIES)
    assert card.patch == (16, 16) and card.reach == 1 and card.largest is None and card.resolution == (10.0, 10.0)
    assert card.scores == scores and card.training["command"] == "r.learn.deep.train ..."
    assert [band.semantic_label for band in card.bands] == ["S2_0", "S2_1", "S2_2", "S2_3"]
    assert card.training["bf16_changes"] == 0
    lines = (model / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,training_loss,validation_loss,validation_f1_macro,learning_rate,seconds"
    assert len(lines) == 4
    page = (model / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.split("</style>")[1]
    assert "class 20" in page and "v.sample.patches ..." in page


def test_the_test_part_is_not_looked_at_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, dataset, seen = fake_backend(), make_patches(tmp_path / "patches"), []
    held_out, read, fit = set(dataset.positions("test").tolist()), Site.read, backend.fit

    def watched(self: Site, positions: np.ndarray) -> Any:
        seen.extend(held_out & set(positions.tolist()))
        return read(self, positions)

    def fitting(network: Any, training: Any, *more: Any, **values: Any) -> Any:
        training.read(np.arange(len(training)))
        assert seen == []
        return fit(network, training, *more, **values)

    monkeypatch.setattr(Site, "read", watched)
    backend.fit = fitting
    plan = training.prepare([dataset], Settings(), backend)
    training.train(plan, tmp_path / "model", backend)
    assert set(seen) == held_out


class AtHomeInPatches(Table):
    """Goes astray in anything larger than a patch of 16 x 16 cells."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        scores = super().predict(batch)
        return scores if batch.shape[-1] == 16 else np.roll(scores, 1, axis=1)


def test_a_network_that_is_lost_in_larger_pictures_is_kept_to_patches_and_the_user_told(tmp_path: Path) -> None:
    backend = fake_backend()
    backend.load = lambda *_: AtHomeInPatches([0, 1, 2])
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)
    said: list[str] = []
    training.train(plan, tmp_path / "model", backend, command="r.learn.deep.train ...", warn=said.append)
    card = read_card(tmp_path / "model")
    assert card.largest == (16, 16) and card.reach == 8
    assert any("tiles of the size of a patch" in text for text in said)


class OfOneSize(Table):
    """Fails with any other patch than of 16 x 16 cells."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        assert batch.shape[2:] == (16, 16)
        return super().predict(batch)


def test_a_network_made_for_one_size_is_shown_no_other(tmp_path: Path) -> None:
    backend = fake_backend()
    backend.load = lambda *_: OfOneSize([0, 1, 2])
    backend.largest = lambda network: (16, 16)
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)
    said: list[str] = []
    training.train(plan, tmp_path / "model", backend, command="r.learn.deep.train ...", warn=said.append)
    assert read_card(tmp_path / "model").largest == (16, 16)
    assert any("made for pictures of one size" in text for text in said)


def test_small_patches_are_laid_side_by_side_without_mixing_their_cells() -> None:
    images = np.arange(5 * 2 * 40 * 30, dtype=np.float32).reshape(5, 2, 40, 30)
    picture = training._side_by_side(images)
    assert picture.shape == (1, 2, 80, 90)
    np.testing.assert_array_equal(picture[0, :, :40, 30:60], images[1])
    np.testing.assert_array_equal(picture[0, :, 40:, 60:], images[0])


def test_scores_are_of_each_part_and_the_classes_in_their_order(tmp_path: Path) -> None:
    scores = trained(tmp_path)
    assert list(scores["parts"]) == ["training", "validation", "test"]
    for part in scores["parts"].values():
        assert part["f1_macro"] > 0.99
        assert [entry["category"] for entry in part["classes"]] == list(CATEGORIES)
    assert scores["f1_macro_last10"] == pytest.approx(0.5) and scores["best_epoch"] == 2


def test_the_mean_of_the_last_epochs_is_that_of_ten(tmp_path: Path) -> None:
    scores = trained(tmp_path, fake_backend(epochs=24))
    assert scores["f1_macro_last10"] == pytest.approx(np.mean([epoch / 25 for epoch in range(15, 25)]))
    assert scores["epochs"] == 24


def test_progress_tells_the_epoch_the_validation_score_and_the_time_that_is_left(tmp_path: Path) -> None:
    backend = fake_backend(seconds=90.0)
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(epochs=41), backend)
    told: list[tuple[int, int, str]] = []
    training.fit(plan, tmp_path, backend, lambda *values: told.append(values))
    assert [values[:2] for values in told] == [(1, 41), (2, 41), (3, 41)]
    assert told[0][2].startswith("Epoch 1 of 41: loss 1.0000, validation 1.0000, F1 0.2500")
    assert [text.rpartition(", ")[2] for _, _, text in told] == [
        "1 h 0 min left",
        "58 min 30 s left",
        "57 min 0 s left",
    ]


def test_a_model_that_stands_is_not_trained_again_for_its_export(tmp_path: Path) -> None:
    target, file, backend, said = tmp_path / "model", tmp_path / "model.onnx", fake_backend(), []
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)

    def again(**values: Any) -> Any:
        return training.train(plan, target, backend, onnx=file, warn=said.append, **values)

    scores = again()
    assert finished(target).onnx == file and not file.exists()
    before = {entry.name: entry.read_bytes() for entry in target.iterdir()}
    backend.fit = None
    backend.export_onnx = lambda *_: (_ for _ in ()).throw(DeepLearningError("No."))
    with pytest.raises(DeepLearningError, match=r"No\. The model '.*' is whole; the same command with -r"):
        export(target, backend, file, command="train", warn=said.append)
    with pytest.raises(DeepLearningError, match="Add -r to finish it"):
        again()
    assert again(resume=True) == scores and "stands already" in said[-1]
    other = replace(plan, settings=replace(plan.settings, seed=2))
    with pytest.raises(DeepLearningError, match="seed was 1, now it is 2"):
        training.train(other, target, backend, resume=True)
    assert finished(target)
    backend.export_onnx = lambda directory, card, path: path.write_text(card.backend)
    export(target, backend, file, command="train", warn=said.append)
    assert file.read_text() == "torch" and finished(target) is None
    assert {entry.name: entry.read_bytes() for entry in target.iterdir()} == before
    assert [entry.name for entry in tmp_path.glob(".*")] == []


def test_an_interrupted_export_says_how_to_go_on_and_may(tmp_path: Path) -> None:
    target, file, backend, said = tmp_path / "model", tmp_path / "model.onnx", fake_backend(), []
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)
    training.train(plan, target, backend, onnx=file)
    backend.export_onnx = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
    for command in ("train model=m", "train model=m -r"):
        with pytest.raises(KeyboardInterrupt):
            export(target, backend, file, command=command, warn=said.append)
        assert said[-1].endswith("is whole. To export it: train model=m -r") and finished(target)


def test_a_run_whose_model_stands_needs_no_file_of_scores(tmp_path: Path) -> None:
    target, file, backend = tmp_path / "model", tmp_path / "model.onnx", fake_backend()
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)
    scores = training.train(plan, target, backend, onnx=file)
    (target / "scores.json").unlink()
    assert training.train(plan, target, backend, onnx=file, resume=True) == scores


def test_another_model_under_the_name_is_not_taken_for_that_of_the_run(tmp_path: Path) -> None:
    backend, target = fake_backend(), tmp_path / "model"
    plan = training.prepare([make_patches(tmp_path / "patches")], Settings(), backend)
    training.train(plan, target, backend, onnx=tmp_path / "file")
    (target / "model.json").write_text((target / "model.json").read_text() + " ")
    assert finished(target) is None
    with pytest.raises(DeepLearningError, match="--overwrite"):
        training.check_target(target, overwrite=False, resume=True)
    training.train(plan, target, backend, overwrite=True)
    assert [entry.name for entry in tmp_path.glob(".*")] == []


def test_a_shifted_label_order_ruins_the_score(tmp_path: Path) -> None:
    assert trained(tmp_path, fake_backend((1, 2, 0)))["parts"]["test"]["f1_macro"] < 0.05


def test_without_a_test_part_the_validation_part_is_reported(tmp_path: Path) -> None:
    scores = trained(tmp_path, shares=(0.7, 0.3, 0.0))
    assert scores["parts"]["test"] is None
    assert training.score_text(scores).startswith("Scores of the validation part")
    assert training.score_text(scores).endswith("mean of the last 3 epochs: F1 macro 0.5")
    only = trained(tmp_path / "only", shares=(1.0, 0.0, 0.0))
    assert training.score_text(only).startswith("Scores of the training part") and only["f1_macro_last10"] is None


def test_missing_parts_and_classes_are_remarked(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", shares=(1.0, 0.0, 0.0))
    labels = np.load(tmp_path / "patches" / "labels.npy")
    labels[labels == 2] = 0
    np.save(tmp_path / "patches" / "labels.npy", labels)
    text = " ".join(training.prepare([dataset], Settings(), fake_backend()).remarks)
    assert "class 30" in text and "no validation part" in text and "training part" in text


def test_balanced_weights_make_classes_equal(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches")
    plan = training.prepare([dataset], Settings(class_weights="balanced"), fake_backend())
    weighted = plan.class_weights * plan.counts["training"]
    np.testing.assert_allclose(weighted, weighted[0])
    np.testing.assert_allclose(weighted.sum(), plan.counts["training"].sum())


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches")
    for settings, fragment in (
        (Settings(architecture="resnet18"), "label per cell"),
        (Settings(class_weights=(1.0, 2.0)), "one class weight per class"),
    ):
        with pytest.raises(DeepLearningError, match=fragment):
            training.prepare([dataset], settings, fake_backend())
    labels = np.load(tmp_path / "patches" / "labels.npy")
    np.save(tmp_path / "patches" / "labels.npy", np.where(labels == 255, 255, 1).astype(np.uint8))
    with pytest.raises(DeepLearningError, match="at least two classes"):
        training.prepare([dataset], Settings(), fake_backend())
    empty = make_patches(tmp_path / "empty", shares=(0.0, 0.5, 0.5))
    with pytest.raises(DeepLearningError, match="labelled patches in the training part"):
        training.prepare([empty], Settings(), fake_backend())


def test_a_single_band_cannot_be_standardised_cell_by_cell(tmp_path: Path) -> None:
    settings = Settings(standardize="cell")
    single = make_patches(tmp_path / "single", bands=1)
    with pytest.raises(DeepLearningError, match=r"one band in reference\. Choose standardize=band"):
        training.prepare([single], settings, fake_backend())
    unlabelled = replace(settings, pretrain="simclr", unlabelled=(str(single.path),))
    with pytest.raises(DeepLearningError, match=r"one band in reference\. Choose standardize=band"):
        prepare_alone(unlabelled, fake_backend())
    several = make_sources(tmp_path / "several", "reference")
    with pytest.raises(DeepLearningError, match=r"one band in auxiliary1 and series\. Choose"):
        training.prepare([several], replace(settings, architecture="fusion"), fake_backend())
    assert training.prepare([several], settings, fake_backend()).network.bands == 4


@pytest.mark.parametrize("error", (KeyboardInterrupt(), DeepLearningError("no"), OSError(28, "No space left")))
def test_a_run_that_fails_leaves_nothing_and_loses_nothing(tmp_path: Path, error: Exception) -> None:
    trained(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    with pytest.raises((KeyboardInterrupt, DeepLearningError)):
        trained(tmp_path / "again", fake_backend(error=error))
    dataset = make_patches(tmp_path / "other")
    backend = fake_backend(error=error)
    plan = training.prepare([dataset], Settings(), backend)
    with pytest.raises((KeyboardInterrupt, DeepLearningError)):
        training.train(plan, tmp_path / "model", backend, overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model", "other", "patches"]
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["patches"]


def test_only_a_model_may_be_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    with pytest.raises(DeepLearningError, match="--overwrite"):
        training.check_target(target, overwrite=False)
    training.check_target(target, overwrite=True)
    (target / "thesis.txt").write_text("precious")
    with pytest.raises(DeepLearningError, match="something else"):
        training.check_target(target, overwrite=True)


def test_balanced_presence_weighs_as_much_as_absence(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", "patch", 8, task="presence")
    plan = training.prepare([dataset], Settings(class_weights="balanced", architecture="resnet18"), fake_backend())
    present = plan.counts["training"]
    np.testing.assert_allclose(plan.class_weights * present, len(plan.parts["training"]) - present)
    assert plan.settings.loss == "bce" and plan.network.classes == 3


def test_values_have_no_class_weights_and_must_differ(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", task="value")
    plan = training.prepare([dataset], Settings(), fake_backend())
    assert plan.network.classes == 1 and plan.target == plan.values["training"] and "height" in plan.text()
    assert plan.summary()["values"]["training"]["count"] == plan.target.count
    with pytest.raises(DeepLearningError, match="Leave out class_weights="):
        training.prepare([dataset], Settings(class_weights="balanced"), fake_backend())
    labels = np.load(tmp_path / "patches" / "labels.npy")
    np.save(tmp_path / "patches" / "labels.npy", labels * np.float32(1e-9))
    assert training.prepare([dataset], Settings(), fake_backend()).target.std == pytest.approx(plan.target.std * 1e-9)
    np.save(tmp_path / "patches" / "labels.npy", np.where(np.isnan(labels), labels, 7).astype(np.float32))
    with pytest.raises(DeepLearningError, match="different values"):
        training.prepare([dataset], Settings(), fake_backend())


def test_errors_of_tiny_values_are_told_in_figures_that_say_something(tmp_path: Path) -> None:
    backend, said = fake_backend(), []
    plan = training.prepare([make_patches(tmp_path / "patches", task="value")], Settings(), backend)
    row = {"epoch": 1, "training_loss": 1.0, "validation_loss": 1.0, "validation_rmse": 1.5e-9, "seconds": 1.0}
    backend.fit = lambda *_, progress, **__: progress(row)
    training.fit(plan, tmp_path, backend, lambda done, total, text: said.append(text))
    assert "RMSE 1.5e-09," in said[0]


class Brightness(Table):
    """Says how bright the first band is."""

    feature_weights = np.ones((1, 4), dtype=np.float32)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return 110 + batch[:, :1]


@pytest.mark.parametrize("size", (200, 16))
def test_actual_against_predicted_is_of_many_patches_and_passes_over_those_without_a_value(
    tmp_path: Path, size: int
) -> None:
    backend = fake_backend()
    backend.load = lambda *_: Brightness([])
    valid = tmp_path / "patches" / "reference_valid.npy"
    part = training.prepare([make_patches(tmp_path / "patches", size=size, task="value")], Settings(), backend).parts
    test = part["test"]
    card = types.SimpleNamespace(patch=(size, size), unit="cell")
    actual, said = report._scattered(test, card, Brightness([]))
    assert 2000 < len(actual) < 12000 and np.corrcoef(actual, said)[0, 1] < -0.3
    assert set(np.unique(actual)) == {100.0, 110.0, 120.0}
    known = np.load(valid)
    known[test.positions[0][0]] = False
    np.save(valid, known)
    plan = training.prepare([PatchDataset.open(tmp_path / "patches")], Settings(), backend)
    assert len(report._scattered(plan.parts["test"], card, Brightness([]))[0]) > 2000


def test_labels_are_drawn_as_they_are_in_the_report() -> None:
    card = types.SimpleNamespace(classes=ClassTable((MapClass(1, "$^$"), MapClass(2, "long " * 40))))
    labels = report._labels(card)
    assert labels == ["$^$", "long long long long long long…"]
    assert report._image(report._matrix_figure(np.eye(2, dtype=int), labels), "matrix")


def test_a_part_without_any_value_is_no_reason_to_lose_the_run(tmp_path: Path) -> None:
    dataset = make_patches(tmp_path / "patches", task="value")
    valid = np.load(tmp_path / "patches" / "reference_valid.npy")
    valid[dataset.positions("test")] = False
    np.save(tmp_path / "patches" / "reference_valid.npy", valid)
    backend = fake_backend_of_values()
    plan = training.prepare([PatchDataset.open(tmp_path / "patches")], Settings(), backend)
    scores = training.train(plan, tmp_path / "model", backend)
    assert scores["parts"]["test"]["count"] == 0 and scores["parts"]["validation"]["count"] > 0
    assert "actual against predicted" in (tmp_path / "model" / "report.html").read_text()


def fake_backend_of_values() -> types.ModuleType:
    backend = fake_backend()
    fit = backend.fit

    def of_values(*plan: Any, **values: Any) -> Any:
        fitted = fit(*plan, **{**values, "progress": lambda row: None})
        for row in fitted.history:
            row["validation_rmse"] = row.pop("validation_f1_macro")
        return fitted

    backend.fit, backend.load = of_values, lambda *_: Brightness([])
    return backend


class OfSeveral(Table):
    """The same of the reference of several sources."""

    feature_weights = np.ones(3, dtype=np.float32)

    def predict(self, batch: Any) -> np.ndarray:
        assert isinstance(batch, Inputs) and batch.images.dtype == np.float32
        for source in batch.further.values():
            assert source.values.dtype == np.float32 and len(source.values) == len(batch)
        return super().predict(batch.images)

    def predict_with_features(self, batch: Any) -> tuple[np.ndarray, np.ndarray]:
        return self.predict(batch), batch.images


def several(directory: Path, settings: Settings, **values: Any) -> tuple[training.Plan, dict[str, Any]]:
    backend = fake_backend()
    if settings.architecture == "fusion":
        backend.load = lambda *_: OfSeveral([0, 1, 2])
    dataset = make_sources(directory / "patches", "reference", **values)
    plan = training.prepare([dataset], settings, backend)
    return plan, training.train(plan, directory / "model", backend)


def test_a_model_of_branches_keeps_what_prediction_needs_of_each(tmp_path: Path) -> None:
    plan, scores = several(tmp_path, Settings(architecture="fusion", standardize="band"), shift=10.0, context=2)
    card = read_card(tmp_path / "model")
    assert [source.name for source in card.branches] == ["auxiliary1", "series"] and not card.stacked
    auxiliary, series = card.sources
    assert auxiliary.shape == (12, 12) and auxiliary.resolution == (20.0, 20.0) and len(series.dates) == 6
    statistics = plan.sites.manifest.sources[2].statistics[0]
    assert series.normalization.mean == (pytest.approx(statistics.mean),)
    assert [band.name for band in card.bands] == ["b_0", "b_1", "b_2"] == [band.name for band in card.reference_bands]
    assert card.largest == card.patch == (16, 16) and card.reach == 8
    assert card.network.options["sources"][1] == {"name": "series", "bands": 1, "series": True}
    assert card.network.options["reference"] is True and card.network.options["unit"] == "cell"
    assert scores["parts"]["test"]["f1_macro"] > 0.99
    page = (tmp_path / "model" / "report.html").read_text()
    assert "6 dates from 2021-02-10 to 2021-11-05" in page and "as the reference shows them" in page
    # 131072 cells in a batch: 16 x 16 of the reference, 12 x 12 of the auxiliary source, six dates of the series.
    assert plan.sites.branch_cells == 12 * 12 * 7
    assert "1 of series of 6 dates" in plan.text() and plan.summary()["sources"][0]["use"] == "branch"


def test_a_model_of_a_stack_keeps_where_its_bands_come_from(tmp_path: Path) -> None:
    plan, _ = several(tmp_path, Settings(resampling="bilinear"))
    card = read_card(tmp_path / "model")
    assert [source.use for source in card.stacked] == ["bilinear"] and not card.branches
    assert [band.name for band in card.bands] == ["b_0", "b_1", "b_2", "auxiliary1_0"]
    assert [band.name for band in card.reference_bands] == ["b_0", "b_1", "b_2"]
    assert card.network.bands == 4 and "sources" not in card.network.options
    assert card.training["settings"]["sources"] == ["reference", "auxiliary1"]
    assert any("series of the patches is left aside" in remark for remark in plan.remarks)


def test_a_model_of_a_series_alone_says_so(tmp_path: Path) -> None:
    plan, _ = several(tmp_path, Settings(architecture="fusion", sources=("series",)))
    card = read_card(tmp_path / "model")
    assert card.network.options["reference"] is False and [source.name for source in card.sources] == ["series"]
    assert "only the grid of the reference" in (tmp_path / "model" / "report.html").read_text()
    assert plan.text().startswith("fusion on 1 of series of 6 dates, 3 classes") and plan.remarks == ()


def test_sources_that_were_named_need_no_remark(tmp_path: Path) -> None:
    plan, _ = several(tmp_path, Settings(sources=("reference",)))
    assert plan.remarks == () and plan.network.bands == 3 and read_card(tmp_path / "model").sources == ()


def test_a_source_that_is_missing_is_remarked(tmp_path: Path) -> None:
    dataset = make_sources(tmp_path / "patches", shift=10.0, absent=0.3)
    remarks = training.prepare([dataset], Settings(), fake_backend()).remarks
    lost = next(remark for remark in remarks if "labelled patches are left out" in remark)
    absent = int((~dataset.valid("auxiliary1").any(axis=(1, 2))).sum())
    assert lost.startswith(f"{absent} ") and "auxiliary1 has" in lost
    assert any(remark.startswith("12 % of the labelled cells") for remark in remarks)


@pytest.mark.parametrize(("sources", "said"), ((("auxiliary1",), 0), (("reference", "auxiliary1"), 1)))
def test_a_source_without_which_patches_are_left_out_is_not_said_to_be_done_without(
    tmp_path: Path, sources: tuple[str, ...], said: int
) -> None:
    dataset = make_sources(tmp_path / "patches", absent=0.3)
    report = {"sources": [{"name": "auxiliary1", "patches_without": 18}]}
    dataset = replace(dataset, manifest=replace(dataset.manifest, report=report))
    plan = training.prepare([dataset], Settings(architecture="fusion", sources=sources), fake_backend())
    assert sum("learns to do without it" in remark for remark in plan.remarks) == said


@pytest.mark.parametrize(
    ("architecture", "network", "expected"),
    (
        ("", None, {"hidden": [16], "dropout": 0.1}),
        ("", {"dropout": 0.3}, {"hidden": [16], "dropout": 0.3}),
        ("mlp", {}, {"hidden": [16], "dropout": 0.1}),
        ("fcn_dilated", {}, {}),
    ),
)
def test_a_network_is_that_of_its_weights_but_for_what_was_chosen(
    tmp_path: Path, architecture: str, network: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    dataset = make_patches(tmp_path / "patches")
    plan = training.prepare([dataset], Settings("mlp", {"hidden": [16], "dropout": 0.1}), fake_backend())
    training.train(plan, tmp_path / "model", fake_backend())
    settings = Settings(architecture, network, weights=str(tmp_path / "model"))
    found = training.prepare([dataset], settings, fake_backend()).network
    assert found.architecture == (architecture or "mlp")
    assert {name: value for name, value in found.options.items() if name != "unit"} == expected


@pytest.mark.parametrize(
    ("settings", "rate"),
    (
        ({}, 1.0),
        ({"architecture": "mlp", "network": {"dropout": 0.3}}, 1.0),
        ({"encoder_rate": 0.3}, 0.3),
        ({"freeze": "2"}, 1.0),
        ({"freeze": "encoder"}, 0.1),
        ({"architecture": "fcn_dilated"}, 0.1),
    ),
)
def test_a_network_that_goes_on_as_a_whole_learns_at_one_rate(
    tmp_path: Path, settings: dict[str, Any], rate: float
) -> None:
    dataset = make_patches(tmp_path / "patches")
    training.train(training.prepare([dataset], Settings("mlp"), fake_backend()), tmp_path / "model", fake_backend())
    plan = training.prepare([dataset], Settings(**settings, weights=str(tmp_path / "model")), fake_backend())
    assert plan.settings.encoder_rate == rate


def test_a_source_left_out_of_the_settings_is_another_run(tmp_path: Path) -> None:
    settings = Settings(sources=("reference", "auxiliary1"))
    dataset = make_sources(tmp_path / "patches", count=10)
    one, other = (
        record_of(training.prepare([dataset], replace(settings, sources=names), fake_backend()).settings, [dataset])
        for names in (("reference",), ("reference", "auxiliary1"))
    )
    assert one != other
