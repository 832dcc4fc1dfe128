"""What the last layer of a network sees, for every kind of network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rlearndeep.backends.torch.features import head_weights
from rlearndeep.backends.torch.networks import build, trial
from rlearndeep.backends.torch.prediction import Predictor
from rlearndeep.backends.torch.rewriting import in_precision
from rlearndeep.model import ModelCard, Network
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass


def predictor_of(architecture: str, unit: str, options: dict, dtype=torch.float32) -> Predictor:
    classes = ClassTable(tuple(MapClass(number, "") for number in range(3)))
    network = Network(architecture, 2, 3, options)
    card = ModelCard(
        "torch", "w", network, unit, (Band("a"), Band("b")), Normalization("none"), classes, (40, 40), (1.0, 1.0)
    )
    torch.manual_seed(1)
    module = build(network).eval()
    fast = module if dtype == torch.float32 else in_precision(dtype, module, module, trial(network, card.patch))
    return Predictor(module, fast, torch.device("cpu"), dtype, card)


@pytest.mark.parametrize(
    ("architecture", "unit", "options", "width", "side"),
    [
        ("mlp", "cell", {"hidden": [5]}, 5, 40),
        ("mlp", "cell", {"hidden": []}, 2, 40),
        ("mlp", "patch", {"hidden": [5], "unit": "patch"}, 5, 0),
        ("fcn_dilated", "cell", {"filters": 4, "blocks": 2}, 8, 40),
        ("cnn", "patch", {"filters": 4, "blocks": 2}, 8, 0),
        ("unet", "cell", {"encoder": "resnet18"}, 16, 40),
        ("fpn", "cell", {"encoder": "resnet18"}, 128, 10),
        ("resnet18", "patch", {}, 512, 0),
        ("swin_t", "patch", {"size": [40, 40]}, 768, 0),
    ],
)
def test_features_belong_to_their_cells_or_patches_and_lead_to_the_answer(architecture, unit, options, width, side):
    predictor = predictor_of(architecture, unit, options)
    batch = np.random.default_rng(0).normal(size=(2, 2, 40, 40)).astype(np.float32)
    scores, features = predictor.predict_with_features(batch)
    np.testing.assert_array_equal(scores, predictor.predict(batch))
    assert features.shape == ((2, width, side, side) if side else (2, width))
    assert predictor.feature_weights.shape == (width,)
    assert (predictor.feature_weights > 0).any()
    assert np.abs(features[0] - features[1]).max() > 0


def test_the_features_of_a_perceptron_are_those_of_each_cell():
    predictor = predictor_of("mlp", "cell", {"hidden": []})
    batch = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(predictor.predict_with_features(batch)[1], batch)


def test_reduced_precision_has_features_of_nearly_the_same_value():
    batch = np.random.default_rng(0).normal(size=(1, 2, 64, 64)).astype(np.float32)
    exact, fast = (
        predictor_of("fcn_dilated", "cell", {"filters": 4, "blocks": 2}, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    one, other = (each.predict_with_features(batch)[1] for each in (exact, fast))
    assert other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max()


def test_what_moves_all_outputs_alike_has_no_weight():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2))
    with torch.no_grad():
        layer[0].weight[:] = torch.tensor([[5.0, 1.0, 3.0], [5.0, -1.0, -1.0]])
    np.testing.assert_allclose(head_weights(layer, "0"), np.sqrt([0, 2, 8]), rtol=1e-6)
    single = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3))
    with torch.no_grad():
        single[0].weight[:] = 2
    np.testing.assert_allclose(head_weights(single, "0"), [6.0])
