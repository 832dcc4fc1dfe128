"""Laws of band statistics, normalisation and the matching of bands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.bands import Band, BandStatistics, Normalization, match_bands, pooled

values_of_a_band = arrays.arrays(np.float64, st.integers(0, 30), elements=st.floats(-1e4, 1e4))


def close(first: BandStatistics, second: BandStatistics) -> bool:
    return first.count == second.count and np.allclose(
        (first.mean, first.std, first.minimum, first.maximum),
        (second.mean, second.std, second.minimum, second.maximum),
        atol=1e-5,
    )


@given(values_of_a_band, values_of_a_band)
def test_statistics_of_parts_add_up_to_those_of_the_whole(first, second):
    together = BandStatistics.of(np.concatenate([first, second]))
    assert close(BandStatistics.of(first) + BandStatistics.of(second), together)
    assert close(BandStatistics.of(second) + BandStatistics.of(first), together)


@given(values_of_a_band)
def test_statistics_survive_json_and_empty_sets_change_nothing(values):
    statistics = BandStatistics.of(values)
    assert BandStatistics.from_json(json.loads(json.dumps(statistics.to_json()))) == statistics
    assert close(statistics + BandStatistics.of(np.empty(0)), statistics)


def test_sites_are_pooled_band_by_band():
    sites = [[BandStatistics.of(np.array([1.0, 3.0])), BandStatistics.of(np.array([5.0]))]] * 2
    assert [(band.count, band.mean, band.std) for band in pooled(sites)] == [(4, 2.0, 1.0), (2, 5.0, 0.0)]


def image(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = generator.normal(200, 30, size=(3, 20, 20)).astype(np.float32)
    valid = generator.random((20, 20)) > 0.2
    values[:, ~valid] = np.nan
    return values, valid


def test_bands_get_mean_zero_and_deviation_one_and_null_cells_the_mean():
    values, valid = image()
    normalization = Normalization.from_statistics("band", [BandStatistics.of(band[valid]) for band in values])
    result = normalization.apply(values, valid)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[:, valid].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(result[:, valid].std(axis=1), 1, atol=1e-5)
    assert (result[:, ~valid] == 0).all()


def test_cells_are_standardised_over_their_own_bands():
    values, valid = image()
    result = Normalization("cell").apply(values, valid)
    np.testing.assert_allclose(result[:, valid].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(result[:, valid].std(axis=0), 1, atol=1e-4)
    assert (result[:, ~valid] == 0).all()


@pytest.mark.parametrize("method", ["band", "cell"])
@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e9])
def test_the_unit_of_the_values_makes_no_difference(method, unit):
    values, valid = image()
    first, second = (
        Normalization.from_statistics(method, [BandStatistics.of(band[valid]) for band in scaled]).apply(scaled, valid)
        for scaled in (values, values * np.float64(unit))
    )
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e7])
def test_a_band_of_one_value_is_centred_and_not_stretched(value):
    values = np.full((1, 5, 5), value, dtype=np.float32)
    parts = BandStatistics.of(values[:, :2]) + BandStatistics.of(values[:, 2:])
    assert not parts.varies
    result = Normalization.from_statistics("band", [parts]).apply(values, np.ones((5, 5), dtype=bool))
    np.testing.assert_allclose(result, 0, atol=1e-6)


def test_cells_whose_bands_are_equal_are_not_stretched():
    values = np.full((7, 5, 5), 0.1, dtype=np.float32)
    np.testing.assert_allclose(Normalization("cell").apply(values, np.ones((5, 5), dtype=bool)), 0, atol=1e-6)


@pytest.mark.parametrize("method", ["band", "cell", "none"])
def test_normalisation_depends_on_no_other_cell_and_changes_no_input(method):
    values, valid = image()
    original = values.copy()
    normalization = Normalization.from_statistics(method, [BandStatistics.of(band[valid]) for band in values])
    whole = normalization.apply(values, valid)
    np.testing.assert_array_equal(whole[:, 3:9, 4:7], normalization.apply(values[:, 3:9, 4:7], valid[3:9, 4:7]))
    np.testing.assert_array_equal(np.stack([whole]), normalization.apply(values[None], valid[None]))
    np.testing.assert_array_equal(values, original)
    assert Normalization.from_json(json.loads(json.dumps(normalization.to_json()))) == normalization


def test_a_band_that_never_varies_is_centred_but_not_stretched():
    values = np.full((1, 2, 2), 7, dtype=np.uint16)
    normalization = Normalization.from_statistics("band", [BandStatistics.of(values[0])])
    np.testing.assert_array_equal(normalization.apply(values, np.ones((2, 2), dtype=bool)), np.zeros((1, 2, 2)))


def test_an_unknown_method_is_refused():
    with pytest.raises(DeepLearningError, match="band, cell, none"):
        Normalization("image")


RED, NIR = Band("red", "S2_4"), Band("nir", "S2_8")


def test_bands_match_by_label_whatever_their_names_and_order():
    assert match_bands([RED, NIR], [Band("x", "S2_8"), Band("y", "S2_1"), Band("z", "S2_4")]) == [2, 0]


def test_bands_match_by_name_where_labels_are_missing_or_double():
    assert match_bands([RED, NIR], [Band("nir"), Band("red")]) == [1, 0]
    assert match_bands([RED, NIR], [Band("nir"), Band("red", "S2_4"), Band("x", "S2_4")]) == [1, 0]


def test_bands_that_nobody_asked_for_need_no_label_of_their_own():
    others = [Band("ndvi"), Band("a", "S2_1"), Band("b", "S2_1")]
    assert match_bands([RED, NIR], [*others, Band("x", "S2_8"), Band("y", "S2_4")]) == [4, 3]
    assert match_bands([RED, NIR], [*others, Band("red", "S2_8"), Band("nir", "S2_4")]) == [4, 3]


@pytest.mark.parametrize("found", ([Band("nir", "S2_4"), Band("red", "S2_4")], [Band("red", "S2_8"), Band("nir")]))
def test_a_band_whose_label_contradicts_its_name_is_not_taken_by_name(found):
    with pytest.raises(DeepLearningError, match="Bands must match"):
        match_bands([RED, NIR], found)


def test_one_raster_is_never_taken_for_two_bands():
    with pytest.raises(DeepLearningError):
        match_bands([Band("a", "S2_4"), Band("b", "S2_4")], [Band("x", "S2_4"), Band("y", "S2_8")])


def test_a_missing_band_is_refused_with_both_lists():
    with pytest.raises(DeepLearningError, match=r"needs 2 \[red \(S2_4\), nir \(S2_8\)\], the group has 1 \[blue\]"):
        match_bands([RED, NIR], [Band("blue")])


def test_bands_survive_json():
    assert [Band.from_json(band.to_json()) for band in (RED, Band("x"))] == [RED, Band("x")]
