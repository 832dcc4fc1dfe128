"""Map units on the ground."""

from __future__ import annotations

import pytest
from rlearndeep.scene.units import length_unit, of_degrees, of_system

FEET = 'PROJCRS["x",BASEGEOGCRS["y",ELLIPSOID["z",6378137,298.3,LENGTHUNIT["metre",1]]],LENGTHUNIT["foot",0.3048]]'
DEGREES = 'GEOGCRS["y",ELLIPSOID["z",6378137,298.3,LENGTHUNIT["metre",1]],ANGLEUNIT["degree",0.017]]'


def test_the_unit_of_a_projected_system_is_that_of_its_axes() -> None:
    assert length_unit(FEET) == 0.3048 and of_system(FEET, None) == (0.3048, 0.3048)


def test_degrees_are_shorter_along_the_parallels() -> None:
    assert length_unit(DEGREES) is None and of_system(DEGREES, None) is None
    assert of_system(DEGREES, (5, 59, 7, 61)) == of_degrees(60) == pytest.approx((111195, 55597.5), rel=1e-4)


def test_without_a_system_nothing_is_known() -> None:
    assert of_system("", (5, 59, 7, 61)) is None
