"""Where two label maps agree, by category or by label."""

from __future__ import annotations

import numpy as np
import pytest
from array_scenes import class_scene
from rlearndeep.sampling.agreement import AgreedPlane, same_classes
from rlearndeep.sampling.labels import number_classes, raster_table
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.codes import IGNORED
from rlearndeep.scene.geometry import Region, Window


class ArrayPlane:
    """Codes in memory."""

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes

    def read(self, window: Window) -> np.ndarray:
        return self.codes[window.slices].copy()


def table(*entries: tuple[int, str]) -> ClassTable:
    return ClassTable(tuple(MapClass(category, label) for category, label in entries))


def test_cells_that_one_map_has_not_or_names_otherwise_are_ignored():
    mine = np.array([[1, 1, 2, 2, 0, 0]])
    theirs = np.array([[1, 2, 2, 0, 1, 0]])
    first, second = (class_scene(np.pad(plane, ((0, 1), (0, 0)), constant_values=3)) for plane in (mine, theirs))
    agreed = AgreedPlane.of(ArrayPlane(first[0].codes), first[1], ArrayPlane(second[0].codes), second[1], False)
    found = agreed.read(Window(0, 1, 0, 6))[0].tolist()
    assert found == [2, IGNORED, 3, IGNORED, IGNORED, 0]
    region = Region(1.0, 0.0, 6.0, 0.0, 1, 6)
    assert agreed.share(region) == {"cells": 3, "agreeing": 2, "percent": 66.67}


def test_without_a_cell_that_both_label_there_is_no_share():
    scene, labels = class_scene(np.array([[1, 0]]))
    other = ArrayPlane(np.zeros((1, 2), dtype=np.int32))
    agreed = AgreedPlane.of(ArrayPlane(scene.codes), labels, other, labels, False)
    assert agreed.share(scene.region) == {"cells": 0, "agreeing": 0, "percent": None}


@pytest.mark.parametrize(("by_label", "expected"), [(True, [1, -2, 0]), (False, [0, 1, -2])])
def test_classes_are_the_same_by_label_or_by_category(by_label, expected):
    mine, theirs = table((1, "forest"), (2, "water")), table((1, "Water"), (2, "moor"), (3, "Forest"))
    assert same_classes(mine, theirs, by_label).tolist() == expected


def test_texts_of_two_vectors_are_compared_as_texts():
    """Numbering alone would call the second vector's moor a forest."""
    mine, _ = number_classes({1: "forest", 2: "water"})
    theirs, _ = number_classes({1: "moor", 2: "water"})
    assert same_classes(mine, theirs, True).tolist() == [-2, 1]
    assert raster_table(mine, 1, 2).class_of.tolist() == [-1, -1, 0, 1]
