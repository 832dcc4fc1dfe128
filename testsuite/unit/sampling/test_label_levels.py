"""Classes of labels at the levels of a table."""

from __future__ import annotations

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.sampling.labels import raster_table
from rlearndeep.sampling.levels import raise_classes
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.levels import LevelTable

LEVELS = LevelTable(
    "levels.csv",
    ("fine", "middle", "broad"),
    (("311", "31", "forest"), ("312", "31", "forest"), ("511", "51", "water"), ("211", "21", "arable")),
)


def table(*entries: tuple[int, str]) -> ClassTable:
    return ClassTable(tuple(MapClass(category, label, (category % 256, 0, 0)) for category, label in entries))


def test_without_a_level_the_classes_stay_and_get_their_parents():
    raised = raise_classes(LEVELS, table((311, "beech"), (511, "lake")), "")
    assert [(entry.category, entry.label, entry.color) for entry in raised.classes] == [
        (311, "beech", (55, 0, 0)),
        (511, "lake", (255, 0, 0)),
    ]
    assert raised.classes[0].parents == (("middle", "31"), ("broad", "forest"))
    assert (raised.category, raised.numbered) == ({311: 311, 511: 511}, False)


def test_integers_of_a_level_are_categories():
    raised = raise_classes(LEVELS, table((311, ""), (312, ""), (511, "")), "middle")
    assert raised.classes.categories.tolist() == [31, 51]
    assert raised.category == {311: 31, 312: 31, 511: 51}
    assert raised.classes[1].parents == (("broad", "water"),)


def test_texts_of_a_level_have_the_same_numbers_whichever_classes_occur():
    all_of_it = raise_classes(LEVELS, table((311, ""), (511, ""), (211, "")), "broad")
    some = raise_classes(LEVELS, table((511, "")), "broad")
    assert [(entry.category, entry.label) for entry in all_of_it.classes] == [
        (1, "arable"),
        (2, "forest"),
        (3, "water"),
    ]
    assert [(entry.category, entry.label) for entry in some.classes] == [(3, "water")]
    assert some.numbered


def test_classes_are_found_by_label_whatever_their_category():
    raised = raise_classes(LEVELS, table((7, "Forest"), (8, "WATER")), "")
    assert raised.category == {7: 7, 8: 8}
    named = LevelTable("t", ("kind", "main"), (("Beech", "Forest"), ("Lake", "Water")))
    assert raise_classes(named, table((1, "lake"), (2, "beech")), "main").category == {1: 2, 2: 1}


def test_texts_that_are_numbers_are_not_taken_for_the_numbers_they_got():
    codes = LevelTable("t", ("code", "main"), (("1", "water"), ("2", "forest"), ("3", "forest"), ("5", "field")))
    raised = raise_classes(codes, table((1, "2"), (2, "3"), (3, "5")), "main")
    labels = {entry.category: entry.label for entry in raised.classes}
    assert [labels[raised.category[number]] for number in (1, 2, 3)] == ["forest", "forest", "field"]


def test_raised_figures_are_texts():
    raised = raise_classes(LevelTable("t", ("code", "main"), (("1", "5"), ("2", "²"))), table((1, ""), (2, "")), "main")
    assert [(entry.category, entry.label) for entry in raised.classes] == [(1, "5"), (2, "²")]


def test_labels_count_where_numbered_texts_are_categories_of_other_classes():
    numbers = LevelTable("t", ("fine", "main"), (("1", "forest"), ("2", "forest"), ("3", "water")))
    raised = raise_classes(numbers, table((1, "forest"), (2, "Water")), "main")
    assert raised.category == {1: 1, 2: 2}
    assert [entry.label for entry in raised.classes] == ["forest", "Water"]


def test_a_finer_level_than_the_labels_have_is_refused():
    with pytest.raises(DeepLearningError, match="coarser than 'fine'"):
        raise_classes(LEVELS, table((31, ""), (51, "")), "fine")


def test_codes_of_a_raster_reach_the_classes_of_the_level():
    raised = raise_classes(LEVELS, table((311, ""), (312, "")), "middle")
    codes = raster_table(raised.classes, 311, 313, raised.category)
    assert codes.class_of.tolist() == [-1, -1, 0, 0, -1]


def test_parents_survive_the_manifest():
    classes = raise_classes(LEVELS, table((311, "beech"), (511, "")), "").classes
    assert ClassTable.from_json(classes.to_json()) == classes
    assert "parents" not in table((1, "")).to_json()[0]
