"""The laws of a network of several sources in Keras: alignment on the ground, absence, sizes, what it begins with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import keras as backend
from rlearndeep.backends.keras.alignment import interpolation
from rlearndeep.backends.keras.augmentation import augment
from rlearndeep.backends.keras.layout import as_input
from rlearndeep.backends.keras.module import Module
from rlearndeep.backends.keras.temporal import mean_of_dates, positions
from rlearndeep.backends.torch.alignment import Placed
from rlearndeep.backends.torch.augmentation import MIRRORED, QUARTERS
from rlearndeep.backends.torch.temporal import positions as of_torch
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, ModelSource, Network
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.inputs import Further, Inputs

SOURCES = [{"name": "auxiliary1", "bands": 1, "series": False}, {"name": "auxiliary2", "bands": 2, "series": False}]
SERIES = {"name": "series", "bands": 3, "series": True}
ALL = [*SOURCES, SERIES]
SMALL: dict[str, Any] = {"encoder": "resnet18", "depth": 3, "filters": 8, "blocks": 2, "sources": ALL}
DATES = ("2020-02-01", "2020-05-11", "2020-08-20")


def network(**changes: Any) -> Network:
    return Network("fusion", 2, 3, {**SMALL, **changes})


@pytest.fixture(scope="module")
def whole() -> Module:
    return backend.build(network())


@pytest.fixture(scope="module")
def alone() -> Module:
    return backend.build(network(reference=False))


def places(count: int = 2, size: tuple[int, int] = (16, 16), seed: int = 0) -> Inputs:
    random = np.random.default_rng(seed)

    def source(bands: int, rows: int, cols: int, box: list[float]) -> Further:
        values = random.normal(size=(count, bands, rows, cols)).astype(np.float32)
        valid = random.random((count, rows, cols)) < 0.8
        days = np.empty((count, 0), dtype=np.float32)
        return Further(values, valid, np.tile(np.float32(box), (count, 1)), days)

    further = {"auxiliary1": source(1, 10, 9, [1.5, 2.25, 6, 5]), "auxiliary2": source(2, 5, 7, [2, 1, 1, 1])}
    values = random.normal(size=(count, 3, 3, 5, 7)).astype(np.float32)
    valid = random.random((count, 3, 5, 7)) < 0.8
    box, days = (np.tile(np.float32(numbers), (count, 1)) for numbers in ([1.5, 2, 2, 2], [31, 131, 232]))
    further["series"] = Further(values, valid, box, days)
    return Inputs(random.normal(size=(count, 2, *size)).astype(np.float32), further)


def changed(inputs: Inputs, name: str, **values: np.ndarray) -> Inputs:
    return Inputs(inputs.images, {**inputs.further, name: replace(inputs.further[name], **values)})


@pytest.mark.parametrize("shape", ((1, 1), (3, 5), (8, 8), (12, 40)))
@pytest.mark.parametrize("box", ((2.0, 3.0, 8.0, 6.0), (5.5, 4.25, 8.0, 8.0), (-1.0, 9.7, 0.5, 30.0)))
def test_cells_are_interpolated_at_their_places_as_pytorch_does_it(
    box: tuple[float, float, float, float], shape: tuple[int, int]
) -> None:
    values = np.random.default_rng(1).normal(size=(1, 1, 22, 23)).astype(np.float32)
    where = np.float32([box])
    rows, cols = (
        interpolation(where[:, axis], where[:, 2 + axis], shape[axis], values.shape[2 + axis], values.shape[2 + axis])
        for axis in (0, 1)
    )
    np.testing.assert_allclose(rows.sum(axis=2), 1, atol=1e-5)
    found = np.einsum("nhr,ncrw,nkw->nchk", rows, values, cols)
    finer = [max(1, round(length / count)) for length, count in zip(box[2:], shape, strict=True)]
    refined = [count * times for count, times in zip(shape, finer, strict=True)]
    many = Placed([torch.from_numpy(values)], torch.from_numpy(where), (1.0, 1.0)).on(refined)
    expected = torch.nn.functional.avg_pool2d(many, finer)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_half_cell_is_the_mean_of_two_and_padding_never_counts() -> None:
    found = interpolation(np.float32([0.5]), np.float32([3.0]), 3, 4, 6)
    np.testing.assert_allclose(found[0], [[0.5, 0.5, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0]])
    beyond = interpolation(np.float32([6.0]), np.float32([3.0]), 3, 4, 6)
    np.testing.assert_allclose(beyond[0], np.eye(6)[[3, 3, 3]])


@pytest.mark.parametrize("size", ((1, 1), (33, 19)))
def test_places_of_any_size_get_an_answer(whole: Module, alone: Module, size: tuple[int, int]) -> None:
    for module in (whole, alone):
        logits = module.logits(places(1, size))
        assert logits.shape == (1, 3, *size) and np.isfinite(logits).all()


def test_the_ground_that_is_added_around_the_reference_moves_no_source(whole: Module) -> None:
    inputs = places(2, (13, 18))
    larger = np.pad(inputs.images, ((0, 0), (0, 0), (0, 3), (0, 6)), mode="edge")
    factor = np.float32([1, 1, 16 / 13, 24 / 18])
    further = {name: replace(source, box=source.box * factor) for name, source in inputs.further.items()}
    expected = whole.logits(Inputs(larger, further))[..., :13, :18]
    np.testing.assert_allclose(whole.logits(inputs), expected, atol=1e-5)


@pytest.mark.parametrize("reference", (True, False))
def test_what_is_absent_or_not_valid_has_no_influence(whole: Module, alone: Module, reference: bool) -> None:
    module, inputs = whole if reference else alone, places()
    expected = module.logits(inputs)
    for name, source in inputs.further.items():
        wild = np.where(np.expand_dims(source.valid, -3), source.values, np.nan)
        assert np.array_equal(module.logits(changed(inputs, name, values=wild)), expected)
        none = np.zeros_like(source.valid)
        one = module.logits(changed(inputs, name, valid=none))
        other = module.logits(changed(inputs, name, valid=none, values=source.values * 9 + 5, days=source.days + 20))
        assert np.array_equal(one, other) and np.isfinite(one).all() and not np.array_equal(one, expected)


def test_the_order_of_dates_does_not_matter_but_their_days_do(alone: Module) -> None:
    inputs = places()
    series, order = inputs.further["series"], [2, 0, 1]
    moved = {"values": series.values[:, order], "valid": series.valid[:, order]}
    found = alone.logits(changed(inputs, "series", **moved, days=series.days[:, order]))
    np.testing.assert_allclose(found, alone.logits(inputs), atol=1e-5)
    assert np.abs(alone.logits(changed(inputs, "series", **moved)) - alone.logits(inputs)).max() > 1e-5


def test_a_date_without_anything_valid_has_no_influence(alone: Module) -> None:
    inputs = places()
    series, kept = inputs.further["series"], [0, 2]
    valid = series.valid.copy()
    valid[:, 1] = False
    expected = alone.logits(changed(inputs, "series", valid=valid))
    days = series.days + np.float32([0, 300, 0])
    assert np.array_equal(alone.logits(changed(inputs, "series", valid=valid, days=days)), expected)
    fewer = {"values": series.values[:, kept], "valid": series.valid[:, kept], "days": series.days[:, kept]}
    np.testing.assert_allclose(alone.logits(changed(inputs, "series", **fewer)), expected, atol=1e-5)


@pytest.mark.parametrize("factor", (1, 2, 4))
def test_a_mean_of_dates_is_that_of_the_valid_ones(factor: int) -> None:
    import keras

    random = np.random.default_rng(1)
    frames = random.normal(size=(2, 3, 8, 8, 4)).astype(np.float32)
    weights = np.full((2, 3, 8 // factor, 8 // factor, 2), 1 / 3, dtype=np.float32)
    share = np.ones((2, 3, 8, 8, 1), dtype=np.float32)
    share[:, 1] = 0
    given = [keras.layers.Input(array.shape[1:]) for array in (frames, share, weights)]
    found = keras.Model(given, mean_of_dates(*given, factor)).predict_on_batch([frames, share, weights])
    np.testing.assert_allclose(found, frames[:, [0, 2]].mean(axis=1), atol=1e-5)
    assert np.array_equal(positions(np.float32([[0, 9]]), 5)[0, 0, 0, 0], [0, 0, 0, 1, 1])


def test_days_are_told_as_to_pytorch() -> None:
    days = np.float32([[3, 200, 900]])
    expected = of_torch(torch.from_numpy(days), 16).numpy()
    np.testing.assert_allclose(positions(days, 16)[:, :, 0, 0], expected, atol=1e-4)


def test_sources_are_left_out_in_training_only_and_never_the_last_one() -> None:
    import keras

    made = backend.build(network(reference=False, dropout=0.6, sources=SOURCES))
    present = {name: np.ones((1000, 1, 1, 1), dtype=np.float32) for name in ("auxiliary1", "auxiliary2")}
    dense = {name: made.model.get_layer(f"decoder_{name}_absent") for name in present}
    inputs = {f"{name}_present": made.model.input[f"{name}_present"] for name in present}
    hidden = keras.Model(inputs, {name: layer.input for name, layer in dense.items()})
    given = {f"{name}_present": array for name, array in present.items()}
    left = [np.asarray(array).ravel() for array in hidden(given, training=True).values()]
    assert all(0.2 < out.mean() < 0.7 for out in left) and not np.logical_and(*left).any()
    assert not any(np.asarray(array).any() for array in hidden(given, training=False).values())


def test_turned_places_have_turned_boxes() -> None:
    """A picture of its own rows and columns, looked at through its box, is turned as the reference is."""
    inputs = places(40, (8, 8))
    rows, cols = np.meshgrid(np.arange(9.0), np.arange(9.0), indexing="ij")
    ramps = np.stack([rows, cols]).astype(np.float32)[None].repeat(40, axis=0)
    box = np.tile(np.float32([1.5, 2.25, 6, 5]), (40, 1))
    source = Further(ramps, np.ones((40, 9, 9), dtype=bool), box, np.empty((40, 0), np.float32))

    def looked_at(images: Inputs) -> np.ndarray:
        own = images.further["auxiliary1"]
        along = [interpolation(own.box[:, axis], own.box[:, 2 + axis], 8, 9, 9) for axis in (0, 1)]
        return np.einsum("nhr,ncrw,nkw->nchk", along[0], own.values, along[1])

    images = looked_at(Inputs(inputs.images, {"auxiliary1": source}))
    before = Inputs(images.astype(np.float32), {"auxiliary1": source})
    for step in ("flip", "rotate"):
        after, _ = augment((step,), before, np.zeros(40, np.int64), np.ones(2, np.float32), np.random.default_rng(1))
        np.testing.assert_allclose(looked_at(after), after.images, atol=1e-4)
        assert not np.array_equal(after.images, before.images) and np.array_equal(before.further["auxiliary1"].box, box)
    assert set(QUARTERS) == {1, 2} and set(MIRRORED) == {-1, -2}


def card_of(made: Network) -> ModelCard:
    sources = (
        ModelSource("auxiliary1", (Band("a"),), (10, 9), (3.0, 3.0)),
        ModelSource("auxiliary2", (Band("b"), Band("c")), (5, 7), (20.0, 20.0)),
        ModelSource("series", tuple(Band(f"s{number}") for number in range(3)), (5, 7), (20.0, 20.0), dates=DATES),
    )
    return ModelCard(
        backend="keras",
        weights=backend.FILE,
        network=made,
        unit=str(made.options.get("unit", "cell")),
        bands=(Band("b0"), Band("b1")),
        normalization=Normalization("none"),
        classes=ClassTable(tuple(MapClass(number, "") for number in range(3))),
        patch=(16, 16),
        resolution=(1.0, 1.0),
        largest=(16, 16),
        sources=sources,
    )


def test_the_file_of_a_network_with_a_series_opens_without_the_suite(tmp_path: Path, alone: Module) -> None:
    import keras

    backend.save(alone, tmp_path / backend.FILE)
    opened = keras.saving.load_model(tmp_path / backend.FILE)  # its safe mode is the default
    inputs = places()
    found = np.moveaxis(opened.predict_on_batch(as_input(inputs, alone.network)), -1, 1)
    assert np.array_equal(found, alone.logits(inputs))


_ELSEWHERE = """
import sys
import keras, numpy as np
given = np.load(sys.argv[2])
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict_on_batch({name: given[name] for name in given.files}))
"""


@pytest.mark.parametrize("engine", ("torch", "jax"))
def test_another_engine_gives_the_same_answer_to_a_few_cells_of_a_series(
    tmp_path: Path, alone: Module, engine: str
) -> None:
    inputs = places()
    series = inputs.further["series"]
    box = np.tile(np.float32([0, 0, 2, 2]), (len(series.box), 1))
    few = changed(inputs, "series", values=series.values[..., :2, :2], valid=series.valid[..., :2, :2], box=box)
    backend.save(alone, tmp_path / backend.FILE)
    given = as_input(few, alone.network)
    np.savez(tmp_path / "given.npz", **given)
    arguments = [str(tmp_path / name) for name in (backend.FILE, "given.npz", "answer.npy")]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *arguments],
        env={**os.environ, "KERAS_BACKEND": engine}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.moveaxis(np.load(tmp_path / "answer.npy"), -1, 1)
    np.testing.assert_allclose(found, alone.logits(few), atol=1e-4)


def test_a_saved_network_of_patches_answers_the_same_in_parts(tmp_path: Path) -> None:
    made = backend.build(network(unit="patch"))
    backend.save(made, tmp_path / backend.FILE)
    card, inputs = card_of(made.network), places(3)
    exact = backend.load(tmp_path, card, "cpu", "32")
    logits = made.logits(inputs)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores, features = exact.predict_with_features(inputs)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert features.shape == (3, len(exact.feature_weights))
    np.testing.assert_allclose(exact.predict_with_features(inputs[2:])[0], scores[2:], atol=1e-5)


def test_the_reference_begins_with_a_network_of_one_source(tmp_path: Path, whole: Module) -> None:
    from rlearndeep.backends.beginning import Source
    from rlearndeep.backends.keras.transfer import Tuning, _arrays, fitted

    unet = backend.build(Network("unet", 2, 3, {"encoder": "resnet18", "depth": 3}))
    bands = (Band("r", "red"), Band("n", "nir"))
    target = backend.Target(network(), bands, ClassTable((MapClass(1, "a"), MapClass(2, "b"), MapClass(3, "c"))))
    arrays = _arrays(unet.model)
    initial = fitted(Source(arrays, "unet", bands), target)
    assert {name for name in arrays if not name.startswith("head/")} <= initial.arrays.keys()
    learns = Tuning.of(whole, initial, "encoder", 1.0).encoder
    assert learns and not any("auxiliary" in name for name in learns)


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_source_of_another_number_and_order_of_bands_gives_the_same_answer(unit: str) -> None:
    from rlearndeep.backends.beginning import Source
    from rlearndeep.backends.keras.transfer import _arrays, fitted

    one, two, three = (Band("dsm"),), (Band("61"), Band("62")), (Band("a"), Band("b"), Band("c"))
    offered = {"auxiliary1": one, "auxiliary2": two, "series": three}
    wanted = {"auxiliary1": two[::-1], "auxiliary2": one, "series": three[::-1]}
    sources = [{**SOURCES[0], "bands": 2}, {**SOURCES[1], "bands": 1}, SERIES]
    before, after = backend.build(network(unit=unit)), backend.build(network(unit=unit, sources=sources))
    bands, classes = (Band("r"), Band("n")), ClassTable(tuple(MapClass(number, "") for number in range(3)))
    known = Source(_arrays(before.model), "before", bands, classes, "class", branches=offered)
    target = backend.Target(network(unit=unit, sources=sources), bands, classes, branches=wanted)
    initial = fitted(known, target)
    assert not initial.renewed and "knows 3 of 3 classes" in initial.note
    initial.load_into(after.model)
    inputs = places()
    further = {name: replace(source, values=np.flip(source.values, -3)) for name, source in inputs.further.items()}
    further = {"auxiliary1": further["auxiliary2"], "auxiliary2": further["auxiliary1"], "series": further["series"]}
    np.testing.assert_allclose(after.logits(Inputs(inputs.images, further)), before.logits(inputs), atol=1e-4)
    more = {**offered, "auxiliary2": (*two, Band("63"))}
    wider = network(unit=unit, sources=[SOURCES[0], {**SOURCES[1], "bands": 3}, SERIES])
    initial = fitted(known, backend.Target(wider, bands, classes, branches=more))
    assert initial.renewed == {"decoder_auxiliary2_around", "decoder_auxiliary2_down_0_0"}
    filters = known.arrays["decoder_auxiliary2_around/kernel"]
    assert np.array_equal(initial.arrays["decoder_auxiliary2_around/kernel"][..., [0, 1, 3], :], filters)


@pytest.mark.parametrize(
    ("options", "fragment"),
    (
        ({"sources": []}, "got none"),
        ({"sources": [SERIES, SERIES]}, "each once"),
        ({"filters": 0}, "filters="),
        ({"encoder": "nonsense"}, "'nonsense' is not"),
        ({"depth": 2}, "depth"),
    ),
)
def test_what_cannot_be_built_is_refused_in_a_line(options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(DeepLearningError, match=fragment) as caught:
        backend.build(network(**options))
    assert "\n" not in str(caught.value)
