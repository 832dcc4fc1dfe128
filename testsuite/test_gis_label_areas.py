"""Which feature gave each label of patches, and columns written back."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
from conftest import Grass, new_mapset
from synthetic_patches import make_patches
from test_gis import inside

OPEN = """
import grass.script as gs
from rlearndeep.gis.label_areas import areas_of_labels, check_columns, write_columns
from rlearndeep.gis.vectors import open_features
from rlearndeep.patches import PatchDataset
"""


def run(session: Grass, patches: Path, code: str) -> object:
    """As ``inside``, with the patch directory opened."""
    return inside(session, f"{OPEN}dataset = PatchDataset.open({str(patches)!r})\n{textwrap.dedent(code)}")


@pytest.fixture(scope="module")
def plots(tmp_path_factory, grass_env) -> tuple[Grass, Path]:
    """Squares of 10 x 10 cells, points, and patches of 4 x 4 cells anywhere in the region of 100 x 100 cells."""
    folder = tmp_path_factory.mktemp("plots")
    session = new_mapset(folder, grass_env)
    session.ok("g.region", "n=1000", "s=0", "w=0", "e=1000", "res=10")
    session.ok("v.mkgrid", "map=squares", "grid=10,10")
    session.ok("v.to.rast", "input=squares", "type=area", "use=cat", "output=cats")
    # The first two share a cell.
    points = "5|995|1|a\n6|994|2|a\n15|995|3|b\n995|5|4|b\n"
    session.ok(
        "v.in.ascii",
        "input=-",
        "output=points",
        "cat=3",
        "columns=x double precision, y double precision, cat int, kind varchar(5)",
        stdin=points,
    )
    dataset = make_patches(folder / "patches", size=4, count=40)
    index = np.array(dataset.index)
    random = np.random.default_rng(3)
    index["row"], index["col"] = random.integers(0, 97, (2, 40))
    index["row"][:2], index["col"][:2] = (0, 96), (0, 96)
    index["area"][5] = 7
    np.save(folder / "patches" / "index.npy", index)
    session.ok("g.region", "n=700", "s=100", "w=0", "e=500", "res=30")
    return session, folder / "patches"


def test_cells_have_the_category_of_their_area_whatever_the_current_region(plots):
    session, patches = plots
    wrong, region, whole = run(
        session,
        patches,
        """
        categories, number = areas_of_labels(dataset, open_features("squares", "1", "row"))
        with RasterStack(["cats"], dataset.manifest.region, dtype="int32") as stack:
            expected = [
                stack.read(Window(row, row + 4, col, col + 4))[0] for row, col in dataset.index[["row", "col"]].tolist()
            ]
        expected[5][:] = 7  # that patch names its only area itself
        wrong = int((categories[number - 1] != np.stack(expected)).sum())
        answer = [wrong, gs.region()["rows"], bool((number > 0).all())]
        """,
    )
    assert (wrong, region, whole) == (0, 20, True)


def test_a_cell_of_one_point_has_it_and_a_cell_of_two_has_none(plots):
    session, patches = plots
    found = run(
        session,
        patches,
        """
        index = np.array(dataset.index)
        index["area"] = 0  # a square is no point
        np.save(dataset.path / "index.npy", index)
        categories, number = areas_of_labels(PatchDataset.open(dataset.path), open_features("points", "1", "kind"))
        answer = [categories.tolist(), number[0].tolist()[0], number[1].tolist()[-1]]
        """,
    )
    assert found == [[1, 2, 3, 4], [0, 3, 0, 0], [0, 0, 0, 4]]


def test_a_feature_of_category_0_has_its_own_cells_and_not_those_of_none(plots):
    session, patches = plots
    session.ok(
        "v.in.ascii",
        "input=-",
        "output=from_zero",
        "cat=3",
        "columns=x double precision, y double precision, cat int, kind varchar(5)",
        stdin="5|995|0|a\n15|995|3|b\n",
    )
    found = run(
        session,
        patches,
        """
        index = np.array(dataset.index)
        index["area"] = 0
        np.save(dataset.path / "index.npy", index)
        categories, number = areas_of_labels(PatchDataset.open(dataset.path), open_features("from_zero", "1", "kind"))
        answer = [categories.tolist(), number[0].tolist()[0], int((number[0] > 0).sum()), int((number[1] > 0).sum())]
        """,
    )
    assert found == [[0, 3], [1, 2, 0, 0], 2, 0]


def test_columns_are_added_filled_and_only_replaced_when_asked(plots):
    session, patches = plots
    done = run(
        session,
        patches,
        """
        vector = open_features("squares", "1", "row")
        columns = {"doubt": "double precision", "suggested": "varchar(50)", "n": "integer"}
        answer = []
        check_columns(vector, columns, ["row"], False)
        write_columns(vector, columns, {1: (0.25, "it's; DROP", 3), 2: (1.0, None, 1)})
        write_columns(vector, columns, {2: (0.5, "b", 2)})
        for changes, taken, overwrite in (
            (columns, ["row"], False),
            ({"n": "varchar(10)"}, ["row"], True),
            ({"row": "integer"}, ["row"], True),
            ({"cat": "integer"}, ["row"], True),
            ({"a b": "integer"}, ["row"], True),
            ({"order": "integer"}, ["row"], True),
        ):
            try:
                check_columns(vector, changes, taken, overwrite)
            except DeepLearningError as error:
                answer.append(str(error))
        check_columns(vector, columns, ["row"], True)
        """,
    )
    for text, word in zip(
        done, ("--overwrite", "type varchar", "in use", "in use", "letters", "word of SQL"), strict=True
    ):
        assert word in text
    rows = session.ok("v.db.select", "-c", "map=squares", "columns=cat,doubt,suggested,n", "where=cat < 4")
    assert rows.split() == ["1|||", "2|0.5|b|2", "3|||"]


def test_tables_that_cannot_hold_the_columns_are_refused_in_one_line(plots):
    session, patches = plots
    directory = session.mapset / "dbf"
    directory.mkdir()
    session.ok("db.connect", "driver=dbf", f"database={directory}/")
    session.ok("g.copy", "vector=squares,old_squares")
    session.ok("db.connect", "-d")
    found = run(
        session,
        patches,
        """
        answer = []
        for action in (
            lambda: check_columns(open_features("old_squares", "1", "row"), {"much_too_long": "integer"}, [], False),
            lambda: write_columns(open_features("squares", "1", "row"), {"group": "integer"}, {}),
        ):
            try:
                action()
            except DeepLearningError as error:
                answer.append(str(error))
        """,
    )
    assert "10 characters at most; <much_too_long>" in found[0] and "g.copy" in found[0]
    assert "must be writable" in found[1] and "group" in found[1]


def test_a_cell_where_areas_overlap_has_none_of_them(plots):
    session, patches = plots
    edges = [("B", 5, (left, 1000), (left + 20, 1000), (left + 20, 0), (left, 0), (left, 1000)) for left in (0, 20, 40)]
    boundaries = "".join(f"B {count}\n" + "".join(f" {x} {y}\n" for x, y in corners) for _, count, *corners in edges)
    centroids = "C 1 1\n 10 500\n 1 1\nC 1 2\n 30 500\n 1 1\n 1 2\nC 1 1\n 50 500\n 1 2\n"
    session.ok("v.in.ascii", "-n", "input=-", "output=raw", "format=standard", stdin=boundaries + centroids)
    session.ok("v.clean", "input=raw", "output=overlapping", "tool=break,rmdupl")
    session.ok("v.db.addtable", "map=overlapping", "columns=kind varchar(5)")
    session.ok("v.db.update", "map=overlapping", "column=kind", "value=a")
    found = run(
        session,
        patches,
        """
        index = np.array(dataset.index)
        index["area"] = 0
        index["row"][0], index["col"][0] = 0, 1
        np.save(dataset.path / "index.npy", index)
        categories, number = areas_of_labels(PatchDataset.open(dataset.path), open_features("overlapping", "1", "kind"))
        answer = [categories.tolist(), number[0].tolist()[0]]
        """,
    )
    assert found == [[1, 2], [1, 0, 0, 2]]


def test_texts_that_are_numbers_are_the_classes_of_that_label(plots):
    session, patches = plots
    found = run(
        session,
        patches,
        """
        from rlearndeep.gis.label_areas import _classes
        from rlearndeep.gis.vectors import LabelVector
        from rlearndeep.scene.classes import ClassTable, MapClass
        classes = ClassTable((MapClass(1, "2"), MapClass(2, "3"), MapClass(3, "oak")))
        features = np.arange(1, 6)
        texts = LabelVector("v", "1", "area", {1: "2", 2: "3", 3: "1", 4: None, 5: "OAK"}, {}, {})
        numbers = LabelVector("v", "1", "area", {1: 2, 2: 3, 3: 1, 4: None, 5: 7}, {}, {})
        answer = [_classes(vector, features, classes).tolist() for vector in (texts, numbers)]
        """,
    )
    assert found == [[-1, 0, 1, -1, -1, 2], [-1, 1, 2, 0, -1, -1]]


def test_the_presence_of_a_class_is_claimed_by_the_one_feature_that_has_it(plots):
    session, folder = plots
    patches = folder.parent / "presence"
    dataset = make_patches(patches, "patch", 4, 40, task="presence")
    random = np.random.default_rng(5)
    index = np.array(dataset.index)
    index["row"], index["col"] = random.integers(0, 97, (2, 40))
    np.save(patches / "index.npy", index)
    labels, expected = np.zeros((2, 40, 3), dtype=np.int64)
    for patch, (top, left) in enumerate(index[["row", "col"]].tolist()):
        squares = {(row // 10, col // 10) for row in (top, top + 3) for col in (left, left + 3)}
        for kind in range(3):
            mine = [(9 - row) * 10 + col + 1 for row, col in squares if (row + col) % 3 == kind]
            labels[patch, kind] = bool(mine)
            expected[patch, kind] = mine[0] if len(mine) == 1 else 0
    labels[0, :], expected[0, :] = 0, 0  # as where the cells of a feature were ignored
    np.save(patches / "labels.npy", labels.astype(dataset.labels.dtype))
    session.ok("v.db.addcolumn", "map=squares", "columns=kind varchar(10)")
    for kind in range(3):
        where = f"where=(row + col - 2) % 3 = {kind}"
        session.ok("v.db.update", "map=squares", "column=kind", f"value=Class {10 * kind + 10}", where)
    session.ok("v.db.update", "map=squares", "column=kind", "query_column=NULL", "where=cat = 1")
    categories, number = run(
        session,
        patches,
        """
        categories, number = areas_of_labels(dataset, open_features("squares", "1", "kind"))
        answer = [categories.tolist(), number.tolist()]
        """,
    )
    found = np.append(0, categories)[np.array(number)]
    np.testing.assert_array_equal(found, np.where(expected == 1, 0, expected))
    assert (expected > 0).sum() > 40 and (labels.astype(bool) & (expected == 0)).any()
    session.ok("v.db.addcolumn", "map=squares", "columns=finer varchar(10)")
    session.ok("v.db.update", "map=squares", "column=finer", "value=class 10 a")
    message = run(
        session,
        patches,
        """
        try:
            areas_of_labels(dataset, open_features("squares", "1", "finer"))
        except DeepLearningError as error:
            answer = str(error)
        """,
    )
    assert "no label of <squares> is a class of" in message and "level=" in message


def test_labels_of_another_layer_are_refused_with_the_layer(tmp_path, plots):
    session, _ = plots
    dataset = make_patches(tmp_path / "others", size=4, count=4)
    index = np.array(dataset.index)
    index["area"] = 7000
    np.save(tmp_path / "others" / "index.npy", index)
    message = run(
        session,
        tmp_path / "others",
        """
        try:
            areas_of_labels(dataset, open_features("squares", "1", "row"))
        except DeepLearningError as error:
            answer = str(error)
        """,
    )
    assert "those of layer 1 of <squares>" in message and "layer=" in message
