"""The laws of a network of several sources: alignment on the ground, dates, absence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.alignment import Placed
from rlearndeep.backends.torch.branches import Branch
from rlearndeep.backends.torch.networks import trial
from rlearndeep.backends.torch.temporal import TemporalAttention, positions
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, ModelSource, Network
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.inputs import Further, Inputs

SOURCES = [{"name": "auxiliary1", "bands": 1, "series": False}, {"name": "series", "bands": 3, "series": True}]
SMALL: dict[str, Any] = {"encoder": "resnet18", "depth": 3, "filters": 8, "sources": SOURCES}
DATES = ("2020-02-01", "2020-05-11", "2020-08-20")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(**changes: Any) -> Network:
    return Network("fusion", 2, 3, {**SMALL, **changes})


def built(**changes: Any) -> torch.nn.Module:
    torch.manual_seed(3)
    return backend.build(network(**changes)).eval()


def places(count: int = 2, size: tuple[int, int] = (16, 16), seed: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(seed)

    def numbers(*sides: int) -> torch.Tensor:
        return torch.randn((count, *sides), generator=random)

    auxiliary = Further(
        numbers(1, 10, 9),
        torch.rand((count, 10, 9), generator=random) < 0.8,
        torch.tensor([[1.5, 2.25, 6.0, 5.0]]).repeat(count, 1),
        torch.empty(count, 0),
    )
    series = Further(
        numbers(3, 3, 5, 7),
        torch.rand((count, 3, 5, 7), generator=random) < 0.8,
        torch.tensor([[2.0, 1.0, 1.0, 1.0]]).repeat(count, 1),
        torch.tensor([[31.0, 131.0, 232.0]]).repeat(count, 1),
    )
    return Inputs(numbers(2, *size), {"auxiliary1": auxiliary, "series": series})


def changed(inputs: Inputs, name: str, **values: torch.Tensor) -> Inputs:
    return Inputs(inputs.images, {**inputs.further, name: replace(inputs.further[name], **values)})


def answer(module: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    with torch.inference_mode():
        return module(inputs)


@pytest.mark.parametrize("size", ((1, 1), (5, 3), (16, 16), (33, 19)))
@pytest.mark.parametrize("reference", (True, False))
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_places_of_any_size_get_an_answer(unit: str, reference: bool, size: tuple[int, int]) -> None:
    module = built(unit=unit, reference=reference)
    assert answer(module, places(1, size)).shape == ((1, 3, *size) if unit == "cell" else (1, 3))
    module.train()(places(2, size)).square().mean().backward()
    assert all(torch.isfinite(own.grad).all() for own in module.parameters() if own.grad is not None)


@pytest.mark.parametrize("shape", ((1, 1), (3, 5), (8, 8), (12, 40)))
@pytest.mark.parametrize("box", ((2.0, 3.0, 8.0, 6.0), (5.5, 4.25, 8.0, 8.0), (9.3, 9.7, 0.5, 1.0)))
def test_features_lie_on_the_ground_whatever_the_cells(
    box: tuple[float, float, float, float], shape: tuple[int, int]
) -> None:
    """A picture of its own rows and columns has, wherever it is looked at, the place as its value."""
    torch.manual_seed(1)
    branch = Branch(2, (4, 8, 16), series=False).eval()
    with torch.no_grad():  # only the values themselves pass
        for layer in (branch.around, *branch.out):
            layer.weight.zero_()
            layer.bias.zero_()
        branch.around.weight[0, 0] = branch.around.weight[1, 1] = 1
        for width, layer in zip((4, 8, 16), branch.out, strict=True):
            layer.weight[0, width] = layer.weight[1, width + 1] = 1
    rows, cols = torch.meshgrid(torch.arange(22) + 0.5, torch.arange(23) + 0.5, indexing="ij")
    picture = Further(
        torch.stack([rows, cols])[None], torch.ones(1, 22, 23, dtype=torch.bool), torch.tensor([box]), torch.empty(1, 0)
    )
    found = Placed.of(branch(picture), picture.box).on(shape)[0, :2]
    down = box[0] + (torch.arange(shape[0]) + 0.5) * box[2] / shape[0]
    right = box[1] + (torch.arange(shape[1]) + 0.5) * box[3] / shape[1]
    torch.testing.assert_close(found[0], down[:, None].expand(shape), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1], right.expand(shape), atol=1e-4, rtol=0)


def test_a_grid_coarser_than_every_map_gets_means() -> None:
    torch.manual_seed(1)
    maps = [torch.rand(1, 1, 32, 32)]
    found = Placed.of(maps, torch.tensor([[0.0, 0.0, 32.0, 32.0]])).on((2, 2))
    torch.testing.assert_close(found, torch.nn.functional.avg_pool2d(maps[0], 16))


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_the_ground_that_is_added_around_the_reference_moves_no_source(unit: str) -> None:
    module = built(unit=unit)
    inputs = places(2, (13, 18))
    larger = torch.nn.functional.pad(inputs.images, (0, 6, 0, 3), mode="replicate")
    factor = torch.tensor([1, 1, 16 / 13, 24 / 18])
    further = {name: replace(source, box=source.box * factor) for name, source in inputs.further.items()}
    whole = answer(module, Inputs(larger, further))
    expected = whole[..., :13, :18] if unit == "cell" else whole
    torch.testing.assert_close(answer(module, inputs), expected)


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_the_order_of_dates_does_not_matter_but_their_days_do(unit: str) -> None:
    module, inputs = built(unit=unit), places()
    series = inputs.further["series"]
    order = torch.tensor([2, 0, 1])
    moved = changed(
        inputs, "series", values=series.values[:, order], valid=series.valid[:, order], days=series.days[:, order]
    )
    torch.testing.assert_close(answer(module, moved), answer(module, inputs), atol=1e-5, rtol=1e-5)
    other = changed(inputs, "series", days=series.days[:, order])
    assert (answer(module, other) - answer(module, inputs)).abs().max() > 1e-5


@pytest.mark.parametrize("reference", (True, False))
def test_what_is_not_valid_has_no_influence(reference: bool) -> None:
    module, inputs = built(reference=reference), places()
    for name in inputs.further:
        source = inputs.further[name]
        wild = torch.where(source.valid.unsqueeze(-3), source.values, torch.nan)
        assert torch.equal(answer(module, changed(inputs, name, values=wild)), answer(module, inputs))


def test_a_date_without_anything_valid_has_no_influence() -> None:
    module, inputs = built(), places()
    series = inputs.further["series"]
    valid = series.valid.clone()
    valid[:, 1] = False
    expected = answer(module, changed(inputs, "series", valid=valid))
    for day in (0.0, 400.0):
        days = series.days.clone()
        days[:, 1] = day
        assert torch.equal(answer(module, changed(inputs, "series", valid=valid, days=days)), expected)
    kept = torch.tensor([0, 2])
    fewer = changed(
        inputs, "series", values=series.values[:, kept], valid=series.valid[:, kept], days=series.days[:, kept]
    )
    torch.testing.assert_close(answer(module, fewer), expected, atol=1e-6, rtol=1e-5)


def test_weights_of_dates_sum_to_one_where_there_is_a_date() -> None:
    torch.manual_seed(1)
    attention = TemporalAttention(16, 4)
    share = torch.rand(2, 5, 3, 3)
    share[0, :, 1, 1] = 0
    share[:, 2] = 0
    frame, weights = attention(torch.randn(2, 5, 16, 3, 3), share, torch.rand(2, 5) * 365)
    assert frame.shape == (2, 16, 3, 3) and weights.shape == (2, 5, 4, 3, 3)
    total = weights.sum(dim=1)
    assert (total[0, :, 1, 1] == 0).all() and (weights[:, 2] == 0).all()
    total[0, :, 1, 1] = 1
    torch.testing.assert_close(total, torch.ones_like(total))


def test_days_have_places_of_their_own_over_years() -> None:
    found = positions(torch.arange(1500.0), 32)
    assert found.shape == (1500, 32) and found.abs().max() <= 1
    distances = torch.cdist(found, found) + 9 * torch.eye(1500)
    assert distances.min() > 0.1


@pytest.mark.parametrize("reference", (True, False))
def test_an_absent_source_is_the_same_whatever_stands_in_its_place(reference: bool) -> None:
    module, inputs = built(reference=reference), places()
    for name in inputs.further:
        source = inputs.further[name]
        none = torch.zeros_like(source.valid)
        one = changed(inputs, name, valid=none)
        other = changed(inputs, name, valid=none, values=source.values * 9 + 5, days=source.days + 20)
        assert torch.equal(answer(module, one), answer(module, other))
        assert torch.isfinite(answer(module, one)).all()
        assert not torch.equal(answer(module, one), answer(module, inputs))
    nothing = Inputs(
        inputs.images, {name: replace(own, valid=torch.zeros_like(own.valid)) for name, own in inputs.further.items()}
    )
    module.train()
    loss = module(nothing).square().mean()
    loss.backward()
    assert all(torch.isfinite(own.grad).all() for own in module.parameters() if own.grad is not None)


def test_a_place_does_not_depend_on_the_others_of_its_batch() -> None:
    module, inputs = built(), places(3)
    source = inputs.further["series"]
    mixed = changed(inputs, "series", valid=source.valid & torch.tensor([True, False, True])[:, None, None, None])
    one = mixed.map(lambda tensor: tensor[2:])
    torch.testing.assert_close(answer(module, mixed)[2:], answer(module, one), atol=1e-5, rtol=1e-5)


def test_sources_are_left_out_in_training_only_and_never_the_last_one() -> None:
    present = torch.ones(2000, 2, dtype=torch.bool)
    present[:500, 0] = False
    module = built(reference=False, dropout=0.6).train()
    torch.manual_seed(1)
    seen = module.inner._seen(present)
    assert seen.any(dim=1).all() and not (seen & ~present).any() and not seen[500:].all()
    assert torch.equal(module.eval().inner._seen(present), present)
    only = built(reference=False, sources=SOURCES[1:]).train()
    assert torch.equal(only.inner._seen(present), present)
    with_reference = built(dropout=0.3).train()
    torch.manual_seed(1)
    assert 0.65 < with_reference.inner._seen(present)[500:].float().mean() < 0.75


@pytest.mark.parametrize(
    ("options", "fragment"),
    (
        ({"sources": []}, "got none"),
        ({"sources": [SOURCES[0], SOURCES[0]]}, "each once"),
        ({"sources": [{"name": "reference", "bands": 1}]}, "'{'name': 'reference'"),
        ({"sources": [{"name": "series", "bands": 0}]}, "bands="),
        ({"sources": "series"}, "sources="),
        ({"filters": 0}, "filters="),
        ({"blocks": 9}, "blocks="),
        ({"dropout": 1}, "Dropout"),
        ({"encoder": "nonsense"}, "'nonsense' is not"),
        ({"depth": 2}, "depth"),
    ),
)
def test_a_bad_description_is_refused(options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(DeepLearningError, match=fragment) as caught:
        backend.build(network(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoder", ("efficientnet-b0", "mit_b0", "tu-convnext_atto"))
def test_any_encoder_serves_the_reference(encoder: str) -> None:
    module = backend.build(network(encoder=encoder, depth=5)).eval()
    assert answer(module, places(1, (40, 32))).shape == (1, 3, 40, 32)


def test_the_door_says_what_it_is() -> None:
    assert backend.answers("fusion") == "either" and backend.stride(network()) == 1


def card_of(unit: str = "cell", **changes: Any) -> ModelCard:
    sources = (
        ModelSource("auxiliary1", (Band("a"),), (10, 9), (3.0, 3.0)),
        ModelSource("series", tuple(Band(f"s{number}") for number in range(3)), (5, 7), (20.0, 20.0), dates=DATES),
    )
    return ModelCard(
        backend="torch",
        weights=backend.FILE,
        network=network(unit=unit, **changes),
        unit=unit,
        bands=(Band("b0"), Band("b1")),
        normalization=Normalization("none"),
        classes=ClassTable(tuple(MapClass(number, "") for number in range(3))),
        patch=(16, 16),
        resolution=(1.0, 1.0),
        largest=(16, 16),
        sources=sources,
    )


@pytest.mark.parametrize("reference", (True, False))
@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_saved_network_answers_the_same_with_features(tmp_path: Path, unit: str, reference: bool) -> None:
    card = card_of(unit, reference=reference)
    torch.manual_seed(5)
    module = backend.build(card.network)
    for _ in range(3):
        module.train()(places(4))
    backend.save(module.eval(), tmp_path / backend.FILE)
    predictor = backend.load(tmp_path, card, "cpu", "32")
    used = ("inner.encoder.bn1", "inner.encoder.layer2.1.bn2")
    folded = dict(predictor._module.named_modules())
    assert not any(isinstance(folded.get(name), torch.nn.BatchNorm2d) for name in used)
    batch = places(3).map(lambda tensor: tensor.numpy())
    scores, features = predictor.predict_with_features(batch)
    expected = torch.softmax(answer(module, places(3)), dim=1).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_array_equal(predictor.predict(batch), scores)
    width = predictor.feature_weights.shape[0]
    assert features.shape == ((3, width, 16, 16) if unit == "cell" else (3, width))


def test_a_batch_that_does_not_fit_is_computed_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_of()
    backend.save(backend.build(card.network), tmp_path / backend.FILE)
    predictor = backend.load(tmp_path, card, "cpu", "32")
    batch = places(5).map(lambda tensor: tensor.numpy())
    whole = predictor.predict_with_features(batch)
    forward = backend.Predictor._forward

    def limited(self: backend.Predictor, part: Inputs) -> np.ndarray:
        if len(part) > 2:
            raise torch.cuda.OutOfMemoryError
        return forward(self, part)

    monkeypatch.setattr(backend.Predictor, "_forward", limited)
    for one, other in zip(whole, predictor.predict_with_features(batch), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_reduced_precision_changes_scores_little(tmp_path: Path) -> None:
    card = card_of()
    backend.save(backend.build(card.network), tmp_path / backend.FILE)
    batch = places(2, (64, 64)).map(lambda tensor: tensor.numpy())
    exact, rounded = (backend.load(tmp_path, card, "cpu", name).predict(batch) for name in ("32", "bf16"))
    assert 0 < np.abs(exact - rounded).max() < 0.1


def test_onnx_is_refused_by_name(tmp_path: Path) -> None:
    card = card_of()
    backend.save(backend.build(card.network), tmp_path / backend.FILE)
    with pytest.raises(DeepLearningError, match="'fusion' takes several sources") as caught:
        backend.export_onnx(tmp_path, card, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value) and not (tmp_path / "m.onnx").exists()


def test_the_size_of_a_branch_is_moderate() -> None:
    module = backend.build(Network("fusion", 4, 12, {"sources": SOURCES}))
    counts = [sum(own.numel() for own in branch.parameters()) for branch in module.inner.branches.values()]
    alone = backend.build(Network("unet", 4, 12))
    total = [sum(own.numel() for own in whole.parameters()) for whole in (module, alone)]
    assert max(counts) < 600_000 and total[0] < 1.1 * total[1]


def test_a_trial_is_an_input_of_the_network() -> None:
    inputs = trial(network(), (300, 20))
    assert (
        isinstance(inputs, Inputs)
        and inputs.shape == (1, 2, 64, 20)
        and set(inputs.further) == {"auxiliary1", "series"}
    )
