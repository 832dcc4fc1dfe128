"""Laws of the class table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED, ClassTable, MapClass

colors = st.one_of(st.none(), st.tuples(*[st.integers(0, 255)] * 3))
labels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
tables = st.lists(
    st.builds(MapClass, st.integers(-1000, 1000), labels, colors),
    unique_by=lambda entry: entry.category,
    max_size=20,
).map(lambda entries: ClassTable(tuple(entries)))


@given(tables, st.lists(st.integers(-1100, 1100)))
def test_indices_and_categories_are_inverse(table, values):
    indices = table.indices_of(values)
    for value, index in zip(values, indices, strict=True):
        if index == UNLABELLED:
            assert value not in table.categories
        else:
            assert table.categories[index] == value
    np.testing.assert_array_equal(table.indices_of(table.categories), np.arange(len(table)))
    if len(table):
        np.testing.assert_array_equal(table.categories_of(np.arange(len(table))), table.categories)


@given(tables)
def test_classes_are_ordered_by_category_and_survive_json(table):
    assert (np.diff(table.categories) > 0).all()
    assert ClassTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@given(tables)
def test_every_class_has_a_label_and_a_colour(table):
    assert all(table.labels)
    assert all(0 <= part <= 255 for color in table.colors for part in color)
    assert len(table.labels) == len(table.colors) == len(table) == len(list(table))


def test_labels_and_colours_given_are_kept_and_others_filled_in():
    table = ClassTable((MapClass(7, "", None), MapClass(3, "forest", (1, 2, 3))))
    assert table.labels == ["forest", "7"]
    assert table.colors[0] == (1, 2, 3)
    assert table[1].category == 7


def test_indices_keep_the_shape_and_an_empty_table_knows_nothing():
    table = ClassTable((MapClass(4, "a"),))
    assert table.indices_of([[4, 5], [0, 4]]).tolist() == [[0, UNLABELLED], [UNLABELLED, 0]]
    assert ClassTable(()).indices_of([[1, 2]]).tolist() == [[UNLABELLED, UNLABELLED]]


def test_a_category_may_stand_only_once():
    with pytest.raises(DeepLearningError, match="distinct"):
        ClassTable((MapClass(1, "a"), MapClass(1, "b")))


@pytest.mark.parametrize("category", (2**31, -(2**31), 2**32 + 7))
def test_a_category_that_no_raster_can_hold_is_refused(category):
    with pytest.raises(DeepLearningError, match="2147483647"):
        ClassTable((MapClass(category, "far"),))
    assert len(ClassTable((MapClass(2**31 - 1, "last"), MapClass(1 - 2**31, "first")))) == 2


@pytest.mark.parametrize(
    "entry",
    (
        {"category": 1.7, "label": "a"},
        {"category": True, "label": "a"},
        {"category": 1, "label": None},
        {"category": 1, "label": "\ud800"},
        {"category": 1, "label": "a\0b"},
        {"category": 1, "label": "a", "color": [1, 2]},
        {"category": 1, "label": "a", "color": [1, 2, 256]},
    ),
)
def test_a_class_is_not_made_of_something_else(entry):
    with pytest.raises(ValueError):
        ClassTable.from_json([entry])
