"""Weights to begin with, and what of a network learns, in Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rlearndeep.backends import get_backend
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.transfer import Source, Target, Tuning, fitted, graded, is_encoder
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import fit, prepare, train
from rlearndeep.model import Network
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable, MapClass
from synthetic_patches import CLASSES, make_patches

BANDS = tuple(Band(f"b{number}", f"S2_{number}") for number in range(4))
SMALL: dict[str, Any] = {"architecture": "cnn", "network": {"filters": 4, "blocks": 1}}


def arrays(model: Any) -> dict[str, np.ndarray]:
    return {f"{layer.name}/{value.name}": np.array(value) for layer in model.layers for value in layer.weights}


def source_of(network: Network, bands: tuple[Band, ...], classes: ClassTable = CLASSES) -> Source:
    return Source(arrays(get_backend("keras").build(network).model), "a model", bands, classes, "class")


def begun(source: Source, target: Target) -> tuple[Any, dict[str, np.ndarray]]:
    initial = fitted(source, target)
    model = get_backend("keras").build(target.network).model
    initial.load_into(model)
    return initial, arrays(model)


def test_the_same_network_begins_with_all_that_was_learned() -> None:
    network = Network("cnn", 4, 3, SMALL["network"])
    source = source_of(network, BANDS)
    initial, found = begun(source, Target(network, BANDS, CLASSES))
    assert all(np.array_equal(found[name], array) for name, array in source.arrays.items())
    assert not initial.renewed and "3 of 3 classes" in initial.note


def test_other_bands_share_the_filters_and_other_classes_keep_their_rows() -> None:
    source = source_of(Network("cnn", 4, 3, SMALL["network"]), BANDS)
    bands = (BANDS[2], BANDS[0], Band("x", "L8_11"))
    classes = ClassTable((list(CLASSES)[2], MapClass(99, "new")))
    initial, found = begun(source, Target(Network("cnn", 3, 2, SMALL["network"]), bands, classes))
    before, after = source.arrays["block_1_1/kernel"], found["block_1_1/kernel"]
    assert np.array_equal(after[:, :, :2], before[:, :, [2, 0]])
    np.testing.assert_allclose(after[:, :, 2], before[:, :, [1, 3]].sum(axis=2), rtol=1e-6)
    assert initial.renewed == {"block_1_1"} and "2 of 3 bands" in initial.note and "1 of 2 classes" in initial.note
    assert np.array_equal(found["head/kernel"][:, 0], source.arrays["head/kernel"][:, 2])


def test_bands_in_another_order_are_no_new_ones() -> None:
    network = Network("cnn", 4, 3, SMALL["network"])
    source = source_of(network, BANDS)
    initial, found = begun(source, Target(network, BANDS[::-1], CLASSES))
    assert np.array_equal(found["block_1_1/kernel"], source.arrays["block_1_1/kernel"][:, :, ::-1])
    module = get_backend("keras").build(network)
    assert not initial.renewed and "block_1_1" in Tuning.of(module, initial, "encoder", 1.0).encoder


def test_only_what_came_with_the_weights_is_frozen_or_slow() -> None:
    source = source_of(Network("unet", 4, 3, {"encoder": "resnet18", "depth": 4}), BANDS)
    network = Network("unet", 4, 3, {"encoder": "resnet18"})
    initial = fitted(source, Target(network, BANDS, CLASSES))
    assert "25 of its encoder do not, begin at random" in initial.note
    frozen = Tuning.of(get_backend("keras").build(network), initial, "encoder", 1.0).encoder
    assert {"encoder_stem", "encoder_3_2_2_norm"} <= frozen
    assert not [name for name in frozen if name.startswith(("encoder_4", "decoder_", "head"))]


@pytest.mark.parametrize("encoder", ("resnet18", "mobilenetv2"))
def test_the_trunk_of_a_classifier_becomes_an_encoder(encoder: str) -> None:
    source = source_of(Network(encoder, 4, 3), BANDS)
    target = Target(Network("unet", 4, 3, {"encoder": encoder, "depth": 3}), BANDS, CLASSES)
    initial, found = begun(source, target)
    taken = [name for name in found if is_encoder(name)]
    assert taken and all(np.array_equal(found[name], source.arrays[name]) for name in taken)
    assert set(taken) == set(initial.arrays)


def test_what_hardly_fits_is_refused() -> None:
    source = source_of(Network("mlp", 4, 3), BANDS)
    with pytest.raises(DeepLearningError, match="must fit the encoder"):
        fitted(source, Target(Network("cnn", 4, 3), BANDS, CLASSES))
    backend = get_backend("keras")
    for choice, named in (("weights.pth", "backend=torch"), ("imagenet", "none for 'cnn'")):
        with pytest.raises(DeepLearningError, match=named):
            backend.initial_weights(choice, Target(Network("cnn", 4, 3), BANDS, CLASSES))


def test_a_frozen_encoder_stays_and_thaws_when_told(tmp_path: Path) -> None:
    backend = get_backend("keras")
    dataset = make_patches(tmp_path / "patches", "patch", 8, 30, shares=(1.0, 0.0, 0.0))
    settings: dict[str, Any] = {**SMALL, "device": "cpu", "nprocs": 1}
    train(prepare([dataset], Settings(**settings, epochs=2), backend), tmp_path / "first", backend)
    before = _weights(tmp_path / "first")
    for freeze, moves in (("encoder", False), ("1", True)):
        again = Settings(**settings, epochs=2, patience=0, weights=str(tmp_path / "first"), freeze=freeze)
        plan = prepare([dataset], again, backend)
        assert plan.initial is not None and plan.initial.note in plan.text()
        folder = tmp_path / freeze
        folder.mkdir()
        module = fit(plan, folder, backend).module
        after = arrays(module.model)
        changed = {name for name in after if not np.array_equal(after[name], before[name])}
        assert any(name.startswith("head/") for name in changed)
        assert any(is_encoder(name) for name in changed) == moves


def _weights(directory: Path) -> dict[str, np.ndarray]:
    return arrays(keras.saving.load_model(directory / "model.keras", safe_mode=True))


@pytest.mark.parametrize("kind", ("SGD", "AdamW"))
def test_a_factor_scales_what_a_step_moves(kind: str) -> None:
    moved = {}
    for factor in (1.0, 0.1):
        variables = [keras.Variable(np.ones(3, dtype=np.float32)) for _ in range(2)]
        options = {"weight_decay": 0.1} if kind == "AdamW" else {}
        optimizer = graded(getattr(keras.optimizers, kind), [1.0, factor])(0.01, **options)
        optimizer.apply([keras.ops.ones(3), keras.ops.ones(3)], variables)
        moved[factor] = [1 - np.array(variable) for variable in variables]
    np.testing.assert_allclose(moved[0.1][0], moved[1.0][0], rtol=1e-4)
    np.testing.assert_allclose(moved[0.1][1], 0.1 * moved[1.0][1], rtol=1e-3)
