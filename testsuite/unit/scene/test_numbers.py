"""Numbers that users type."""

from __future__ import annotations

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.numbers import read_number


def test_numbers_are_read_as_the_kind_that_is_needed():
    assert read_number("size", " 12 ", int) == 12
    assert read_number("buffer", "1e2", float) == 100.0


@pytest.mark.parametrize(("text", "kind"), [("4.5", int), ("3x", int), ("", int), ("1e1", int), ("1,5", float)])
def test_what_is_no_such_number_is_refused_by_the_name_of_its_option(text, kind):
    with pytest.raises(DeepLearningError, match="The option size= needs a"):
        read_number("size", text, kind)
