"""Bands of different sensors that show the same."""

from __future__ import annotations

import pytest
from rlearndeep.scene.bands import Band
from rlearndeep.scene.spectrum import common_name, counterparts


@pytest.mark.parametrize(
    ("label", "expected"),
    (
        ("L8_4", "red"),
        ("L5_3", "red"),
        ("S2_4", "red"),
        ("S2_8A", "nir08"),
        ("S2_08", "nir"),
        ("S2_B11", "swir16"),
        ("L7_5", "swir16"),
        ("MODIS_1", "red"),
        ("Green", "green"),
        ("S1_VV", None),
        ("elevation", None),
        ("", None),
        (None, None),
        ("L8_", None),
        ("_4", None),
    ),
)
def test_a_label_names_a_part_of_the_spectrum(label: str | None, expected: str | None) -> None:
    assert common_name(label) == expected


def test_counterparts_are_found_by_label_then_spectrum_then_name() -> None:
    wanted = (Band("a", "S2_8"), Band("b", "S2_4"), Band("height"), Band("x", "blue"))
    offered = (Band("height"), Band("c", "L8_4"), Band("d", "S2_8"), Band("e", "L8_5"))
    assert counterparts(wanted, offered) == [2, 1, 0, None]


def test_a_band_is_taken_once_and_the_same_label_goes_first() -> None:
    assert counterparts((Band("a", "red"), Band("b", "L8_4")), (Band("c", "L8_4"),)) == [None, 0]


def test_names_do_not_count_against_labels() -> None:
    assert counterparts((Band("1", "S2_4"),), (Band("1", "S2_3"),)) == [None]
