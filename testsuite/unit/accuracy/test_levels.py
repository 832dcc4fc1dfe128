"""Class tables together, and their levels."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.accuracy.levels import (
    LevelTable,
    ambiguous_labels,
    common_levels,
    label_conflicts,
    own_level,
    vector_classes,
)
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import ClassTable, MapClass


def table(*entries: tuple[int, str]) -> ClassTable:
    return ClassTable(tuple(MapClass(category, label) for category, label in entries))


@pytest.fixture
def corine(tmp_path):
    file = tmp_path / "levels.csv"
    file.write_text("fine;middle;broad\n311;31;forest\n312;31;forest\n511;51;water\n512;51;water\n")
    return LevelTable.read(file)


def test_own_level_joins_the_classes_and_prefers_the_maps_labels():
    level = own_level([table((1, "one"), (3, ""))], table((1, "eins"), (2, "zwei"), (3, "drei")))
    assert level.classes.categories.tolist() == [1, 2, 3]
    assert level.classes.labels == ["one", "zwei", "drei"]
    assert level.reference.tolist() == [0, 1, 2, -1]
    assert level.maps[0].tolist() == [0, 2, -1]


def test_restricted_level_forgets_absent_classes():
    level = own_level([table((1, ""), (2, ""), (3, ""))], table((3, ""))).restricted(np.array([True, False, True]))
    assert level.classes.categories.tolist() == [1, 3]
    assert level.maps[0].tolist() == [0, -1, 1, -1]
    assert level.reference.tolist() == [1, -1]


def test_different_labels_of_a_category_are_told():
    assert len(label_conflicts([table((1, "a"), (2, "b"))], table((1, "A"), (2, "c")))) == 1


def test_integer_labels_are_categories():
    classes, codes, unknown = vector_classes(np.array([7, 3, 7]), [table((3, "x"))])
    assert (classes.categories.tolist(), codes.tolist(), unknown) == ([3, 7], [1, 0, 1], [])


def test_texts_are_the_maps_labels_or_new_classes():
    labels = np.array(["Forest", "moor", "4", "forest"], dtype=object)
    classes, codes, unknown = vector_classes(labels, [table((3, "forest"), (4, "water"))])
    assert classes.categories[codes].tolist() == [3, 5, 4, 3]
    assert unknown == ["moor"]


def test_texts_that_several_categories_have_as_label_are_named():
    maps = [table((1, "water"), (2, "forest"), (3, "Water")), table((12, "forest"), (13, "moor"))]
    labels = np.array(["WATER", "forest", "moor"], dtype=object)
    assert ambiguous_labels(labels, maps) == ["'water' is that of [1, 3]", "'forest' is that of [2, 12]"]
    assert ambiguous_labels(labels, maps[1:]) == ambiguous_labels(np.array([1, 3]), maps) == []


def test_levels_of_integer_and_text_columns(corine):
    levels = common_levels(corine, [table((311, ""), (511, ""))], table((312, ""), (512, "")))
    assert [level.name for level in levels] == ["fine", "middle", "broad"]
    assert [len(level.classes) for level in levels] == [4, 2, 2]
    assert levels[1].classes.categories[levels[1].maps[0][:2]].tolist() == [31, 51]
    assert levels[2].classes.labels == ["forest", "water"]
    assert levels[2].reference.tolist() == [0, 1, -1]


def test_coarser_map_takes_part_in_its_level_and_above(corine):
    levels = common_levels(corine, [table((31, ""), (51, "")), table((311, ""))], table((312, ""), (511, "")))
    assert levels[0].maps[0] is None
    assert levels[1].maps[0].tolist() == [0, 1, -1]
    coarse_reference = common_levels(corine, [table((311, ""))], table((51, "")))
    assert [level.name for level in coarse_reference] == ["middle", "broad"]


def test_map_with_labels_of_a_level_keeps_its_categories(corine):
    levels = common_levels(corine, [table((8, "Water"), (9, "Forest"))], table((311, ""), (511, "")))
    assert [level.name for level in levels] == ["broad"]
    assert levels[0].classes.categories.tolist() == [8, 9]
    assert levels[0].reference.tolist() == [1, 0, -1]


def test_labels_are_compared_where_map_and_reference_number_them_differently(tmp_path):
    file = tmp_path / "levels.csv"
    file.write_text("fine,broad\nfield,open\nforest,dense\nmeadow,open\nwater,wet\n")
    mapped, reference = (
        table((2, "forest"), (4, "water")),
        table((1, "water"), (2, "field"), (3, "meadow"), (4, "Forest")),
    )
    level = common_levels(LevelTable.read(file), [mapped], reference)[0]
    assert [level.classes[index].label.casefold() for index in level.maps[0][:-1]] == ["forest", "water"]
    assert [level.classes[index].label for index in level.reference[:-1]] == ["water", "field", "meadow", "forest"]
    assert level.classes.categories[level.maps[0][:-1]].tolist() == [2, 4]
    assert len(set(level.classes.categories.tolist())) == 4


def test_texts_that_are_numbers_are_compared_as_such_at_every_level(tmp_path):
    file = tmp_path / "codes.csv"
    file.write_text("code,main\n1,water\n2,forest\n3,forest\n5,field\n")
    predicted = table((1, "2"), (2, "3"), (3, "5"))  # as v.sample.patches numbers the texts 2, 3 and 5
    texts = np.array(["2", "3", "5", "1"], dtype=object)
    reference, codes, _ = vector_classes(texts, [predicted], taken=[1])
    fine, main = common_levels(LevelTable.read(file), [predicted], reference)
    assert [fine.classes.labels[index] for index in fine.reference[codes]] == ["2", "3", "5", "1"]
    assert [fine.classes.labels[index] for index in fine.maps[0][:3]] == ["2", "3", "5"]
    assert [main.classes.labels[index] for index in main.reference[codes]] == ["forest", "forest", "field", "water"]
    assert [main.classes.labels[index] for index in main.maps[0][:3]] == ["forest", "forest", "field"]


def test_labels_that_are_numbers_do_not_exchange_the_classes(tmp_path):
    file = tmp_path / "levels.csv"
    file.write_text("fine,broad\n1,10\n2,10\n3,20\n")
    classes = table((1, "3"), (2, "1"), (3, "2"))
    level = common_levels(LevelTable.read(file), [classes], classes)[0]
    assert level.classes.categories[level.maps[0][:-1]].tolist() == [3, 1, 2]
    assert level.classes.categories[level.reference[:-1]].tolist() == [3, 1, 2]


@pytest.mark.parametrize("categories", [(1, 2), (2, 1)])
def test_labels_of_a_coarser_level_count_where_small_categories_mean_other_classes(tmp_path, categories):
    file = tmp_path / "levels.csv"
    file.write_text("fine,broad\n1,forest\n2,forest\n3,water\n4,water\n")
    mapped = table((categories[0], "Forest"), (categories[1], "water"))
    levels = common_levels(LevelTable.read(file), [mapped], table((1, ""), (2, ""), (3, ""), (4, "")))
    assert [level.name for level in levels] == ["broad"]
    truth = [levels[0].classes.labels[index] for index in levels[0].reference[:-1]]
    assert truth == ["Forest", "Forest", "water", "water"]
    assert [levels[0].classes.labels[index].casefold() for index in levels[0].maps[0][:-1]] == (
        ["forest", "water"] if categories == (1, 2) else ["water", "forest"]
    )


def test_categories_count_where_the_labels_say_the_same(tmp_path):
    file = tmp_path / "levels.csv"
    file.write_text("code,name,broad\n1,oak,forest\n2,fir,forest\n3,lake,water\n")
    levels = common_levels(LevelTable.read(file), [table((1, "Oak"), (3, "lake"))], table((1, ""), (2, ""), (3, "")))
    assert [level.name for level in levels] == ["code", "name", "broad"]


def test_class_that_stands_in_no_column_is_named(corine):
    with pytest.raises(DeepLearningError, match="999 moon"):
        common_levels(corine, [table((311, ""), (999, "moon"))], table((311, "")))


def test_unknown_level_is_refused_with_the_names(corine):
    with pytest.raises(DeepLearningError, match="fine, middle, broad"):
        common_levels(corine, [table((311, ""))], table((311, "")), "coarse")


def test_level_finer_than_a_map_is_refused(corine):
    with pytest.raises(DeepLearningError, match="coarser"):
        common_levels(corine, [table((31, ""))], table((311, "")), "fine")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fine\n1\n", "two columns"),
        ("fine,coarse\n", "header"),
        ("fine,coarse\n1\n", "one value per column"),
        ("fine,coarse\n1,a\n1,b\n", "twice"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, match):
    file = tmp_path / "levels.csv"
    file.write_text(text)
    with pytest.raises(DeepLearningError, match=match):
        LevelTable.read(file)


def test_absent_table_is_refused(tmp_path):
    with pytest.raises(DeepLearningError, match="levels="):
        LevelTable.read(tmp_path / "no.csv")


def test_class_with_two_parents_is_refused(tmp_path):
    file = tmp_path / "levels.csv"
    file.write_text("fine,middle,broad\n1,10,a\n2,10,b\n")
    with pytest.raises(DeepLearningError, match="one parent"):
        common_levels(LevelTable.read(file), [table((10, ""))], table((1, "")))
