"""What a reader is warned of, and what not."""

from __future__ import annotations

from rlearndeep.accuracy.remarks import remarks


def result_of(**entry) -> dict:
    return {"kind": "classes", "unit": "cells", "maps": [{"map": "m", "units": 10, **entry}]}


def area(unsampled: float, error: float | None, without: int = 0) -> dict:
    accuracy = {"value": 0.9, "standard_error": error}
    return {"total": 75.0, "unsampled": unsampled, "without_stratum": without, "overall_accuracy": accuracy}


def test_a_plain_result_is_not_remarked():
    assert remarks(result_of()) == []
    assert remarks(result_of(area=area(0.0, 0.1))) == []
    assert remarks(result_of(training_footprints={"units": 0})) == []


def test_strata_without_a_unit_and_errors_that_cannot_be_known():
    unsampled, unknown = remarks(result_of(area=area(25.0, None)))
    assert unsampled.startswith("25.0 % of the area of <m>")
    assert "fewer than 2 reference units" in unknown


def test_units_that_the_estimates_leave_out_are_told():
    (sentence,) = remarks(result_of(area=area(0.0, 0.1, 3)))
    assert sentence.startswith("3 of 10 cells that <m> is compared with lie in no stratum")


def test_training_ground_is_told_with_both_figures():
    zones = {"units": 5, "share": 0.5, "inside": {"overall_accuracy": 1.0}, "outside": {"overall_accuracy": 0.7}}
    (sentence,) = remarks(result_of(training_footprints=zones))
    assert "50.0 %" in sentence and "1 inside, 0.7 outside" in sentence
    zones["outside"] = {"overall_accuracy": None}
    assert "nothing outside" in remarks(result_of(training_footprints=zones))[0]


def test_maps_known_at_different_cells_are_told():
    result = result_of()
    result["maps"].append({"map": "n", "units": 9})
    assert "different cells" in remarks(result)[0]
