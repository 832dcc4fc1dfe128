"""What a user is told while epochs go by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.learning.progress import LINES, is_told, time_left


@given(st.integers(1, 5000))
def test_few_epochs_are_all_told_and_of_many_some_tens(total: int) -> None:
    told = [done for done in range(1, total + 1) if is_told(done, total)]
    assert told[0] == 1 and told[-1] == total
    assert len(told) == total if total <= LINES else LINES // 2 <= len(told) <= LINES + 2


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    (
        (1, 1, 5.0, "0 s left"),
        (1, 3, 10.0, "20 s left"),
        (2, 3, 10.0, "5 s left"),
        (10, 40, 20.0, "1 min 0 s left"),
        (3, 41, 270.0, "57 min 0 s left"),
        (1, 41, 90.0, "1 h 0 min left"),
        (10, 50, 3600.0, "4 h 0 min left"),
    ),
)
def test_the_time_that_is_left_is_that_of_the_other_epochs(done: int, total: int, seconds: float, text: str) -> None:
    assert time_left(done, total, seconds) == text
