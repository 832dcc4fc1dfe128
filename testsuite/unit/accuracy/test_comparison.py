"""McNemar's test against hand computation."""

from __future__ import annotations

from math import comb, erfc, sqrt

import pytest
from rlearndeep.accuracy.comparison import Discordance, mcnemar


def test_few_discordant_units_are_tested_exactly():
    found = mcnemar(2, 8)
    assert found["test"] == "exact"
    assert found["p_value"] == pytest.approx(2 * sum(comb(10, k) for k in range(3)) / 2**10)


def test_many_discordant_units_are_tested_with_continuity_correction():
    found = mcnemar(40, 20)
    assert found["statistic"] == pytest.approx((40 - 20 - 1) ** 2 / 60)
    # A chi-square of one degree of freedom is the square of a normal variable.
    assert found["p_value"] == pytest.approx(erfc(sqrt(19**2 / 60 / 2)))


def test_the_test_does_not_know_which_map_is_first():
    assert mcnemar(40, 21) == mcnemar(21, 40)
    assert mcnemar(3, 9) == mcnemar(9, 3)


@pytest.mark.parametrize("count", [0, 5, 50])
def test_equal_maps_do_not_differ(count):
    assert mcnemar(count, count)["p_value"] == pytest.approx(1.0)


def test_difference_is_that_of_the_accuracies():
    found = Discordance(both=50, first=20, second=10, neither=20).to_json()
    assert found["overall_accuracy"] == [0.7, 0.6]
    assert found["difference"] == pytest.approx(0.1)
    assert Discordance(0, 0, 0, 0).to_json()["difference"] is None
