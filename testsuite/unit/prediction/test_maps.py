"""Rows of maps from strips."""

from __future__ import annotations

import numpy as np
import pytest
from prediction_scenes import Sheet
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.answers import CELL_NULL, Question, Subject
from rlearndeep.prediction.maps import Cells, Layer, Sheets
from rlearndeep.prediction.stream import Strip
from rlearndeep.prediction.views import VIEWS
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Window

CLASSES = ClassTable((MapClass(4, "low"), MapClass(9, "high")))


@pytest.mark.parametrize("cuts", [(5,), (2, 5), (1, 2, 3, 4, 5)])
def test_columns_of_a_strip_become_whole_rows(cuts):
    rows, cols = 70, 5
    scores = np.linspace(0, 1, rows * cols, dtype=np.float32).reshape(rows, cols)
    scores = np.stack([1 - scores, scores])
    valid = np.arange(rows * cols).reshape(rows, cols) % 7 != 0
    strips = []
    for top, bottom in ((0, 25), (25, 65), (65, rows)):
        for first, last in zip((0, *cuts), cuts, strict=False):
            window = Window(top, bottom, first, last)
            strips.append(Strip(window, scores[:, top:bottom, first:last], valid[top:bottom, first:last]))
    kinds = ("class", "probability", "confidence", "margin", "entropy")
    sheets = [(Layer(kind, 1), Sheet()) for kind in kinds]
    done = []
    areas = np.arange(1.0, rows + 1)
    question = Question(Subject("class", CLASSES))
    tally = Sheets(question, sheets, areas, cols, progress=lambda *state: done.append(state)).write(strips)

    classes, probability, confidence, margin, entropy = (np.array(sheet.rows) for _, sheet in sheets)
    high = scores[1] > scores[0]
    np.testing.assert_array_equal(classes, np.where(valid, np.where(high, 9, 4), CELL_NULL))
    np.testing.assert_array_equal(probability, np.where(valid, np.round(scores[1], 3), np.nan))
    np.testing.assert_array_equal(confidence, np.where(valid, np.round(scores.max(axis=0), 3), np.nan))
    np.testing.assert_allclose(margin, np.where(valid, np.abs(scores[1] - scores[0]), np.nan), atol=5.1e-4)
    assert np.nanmax(entropy) == 1
    assert tally.cells == rows * cols
    assert tally.null_cells == (~valid).sum()
    assert tally.per_class.tolist() == [(valid & ~high).sum(), (valid & high).sum()]
    np.testing.assert_allclose(tally.area, [(areas[:, None] * (valid & one)).sum() for one in (~high, high)])
    assert done[-1] == (rows, rows)


def three_rows(subject: Subject, planes: list, layers: tuple, **question):
    """Maps and counts of three cells in three rows, of which the last is null."""
    valid = np.array([[True], [True], [False]])
    strip = Strip(Window(0, 3, 0, 1), np.array(planes, dtype=np.float32)[:, :, None], valid)
    sheets = [(layer, Sheet()) for layer in layers]
    tally = Sheets(Question(subject, **question), sheets, np.array([1.0, 2.0, 4.0]), 1).write([strip])
    return [np.array(sheet.rows)[:, 0].tolist() for _, sheet in sheets], tally


def test_presence_is_one_map_per_class_and_counts_every_class_that_is_there():
    layers = (Layer("presence", 0), Layer("presence", 1), Layer("probability", 1), Layer("entropy"))
    maps, tally = three_rows(Subject("presence", CLASSES), [[0.9, 0.5, 0.9], [0.8, 0.1, 0.9]], layers)
    assert maps[:2] == [[1, 1, CELL_NULL], [1, 0, CELL_NULL]]
    np.testing.assert_allclose(maps[2], [0.8, 0.1, np.nan], rtol=1e-6)
    np.testing.assert_allclose(maps[3], [0.595, 0.734, np.nan], atol=1e-3)
    assert [layer.dtype for layer in layers] == ["int32", "int32", "float32", "float32"]
    assert (tally.cells, tally.null_cells) == (3, 1)
    assert tally.per_class.tolist() == [2, 1]
    assert tally.area.tolist() == [3, 1]


def test_a_presence_that_is_no_number_is_refused():
    subject, layers = Subject("presence", CLASSES), (Layer("presence", 0), Layer("probability", 1))
    with pytest.raises(DeepLearningError, match="must answer with numbers"):
        three_rows(subject, [[0.9, 0.5, 0.9], [0.8, np.nan, 0.9]], layers)
    three_rows(subject, [[0.9, 0.5, np.nan], [0.8, 0.1, 0.9]], layers)


@pytest.mark.parametrize("kind", ("probability", "confidence", "margin", "entropy", "spread"))
def test_scores_are_rounded_once_and_kept_in_two_bytes(kind: str) -> None:
    high = np.concatenate([[0, 1, 1e-9, 1 + 1e-7], np.random.default_rng(3).random(996)]).astype(np.float32)
    planes = np.stack([1 - high, high, np.zeros(1000, np.float32)]).reshape(3, 10, 100)
    valid = np.arange(1000).reshape(10, 100) % 5 != 4
    planes[:, ~valid] = np.nan
    question = Question(Subject("class", CLASSES), spread=True)
    layer = Layer(kind, 1)
    cells = Cells(question, Window(0, 10, 0, 100), planes, valid)
    kept = layer.kept(cells)
    assert kept.dtype.itemsize <= 2
    exact = {
        "probability": planes[1],
        "confidence": planes[:2].max(axis=0),
        "margin": np.abs(planes[1] - planes[0]),
        "entropy": question.subject.inner(planes[:2]),
        "spread": question.subject.spread(planes[:2], planes[2]),
    }[kind]
    np.testing.assert_array_equal(np.take(layer.table(question.subject), kept), np.round(exact, 3))


@pytest.mark.parametrize(
    ("task", "kinds"),
    (
        ("class", ("class", "probability", "confidence", "margin", "entropy", "spread", "novelty")),
        ("presence", ("presence", "probability", "entropy", "spread", "novelty")),
        ("value", ("value", "spread", "novelty")),
    ),
)
@pytest.mark.parametrize("classes", (2, 300))
def test_the_memory_of_finished_rows_is_known_beforehand(task: str, kinds: tuple, classes: int) -> None:
    table = ClassTable(tuple(MapClass(number, str(number)) for number in range(classes)))
    subject = Subject(task, ClassTable(()) if task == "value" else table)
    question = Question(subject, VIEWS["flips"], spread=True, novelty=True)
    planes = np.full((question.planes, 2, 3), 0.25, dtype=np.float32)
    cells = Cells(question, Window(0, 2, 0, 3), planes, np.array([[True] * 3, [False] * 3]))
    for kind in kinds:
        assert Layer(kind).bytes_kept(subject) == Layer(kind).kept(cells).dtype.itemsize


def test_values_are_written_as_they_are_and_summed_up():
    subject = Subject("value", ClassTable(()), 100.0, 10.0)
    inner = [((v - 100) / 10) ** 2 for v in (101.23456, 99.0)]
    maps, tally = three_rows(
        subject,
        [[101.23456, 99.0, 7.0], [inner[0] + 0.04, inner[1], 0], [0.5, 1.5, 9]],
        (Layer("value"), Layer("spread"), Layer("novelty")),
        spread=True,
        novelty=True,
    )
    np.testing.assert_allclose(maps[0], np.array([101.23456, 99.0, np.nan], np.float32), rtol=0)
    np.testing.assert_allclose(maps[1], [2, 0, np.nan], atol=1e-3)
    np.testing.assert_allclose(maps[2], [0.5, 1.5, np.nan])
    assert (tally.cells, tally.null_cells, tally.per_class.size) == (3, 1, 0)
    assert tally.statistics.count == 2
    assert tally.statistics.minimum == 99
    assert tally.statistics.mean == pytest.approx(100.11728, rel=1e-6)


def test_small_values_keep_their_spread():
    subject = Subject("value", ClassTable(()), 0.0, 1e-3)
    maps, _ = three_rows(subject, [[1e-3, 0.0, 0.0], [1.04, 0.09, 0.0]], (Layer("value"), Layer("spread")), spread=True)
    np.testing.assert_allclose(maps[1][:2], [2e-4, 3e-4], rtol=1e-5)


@pytest.mark.parametrize("absurd", (np.nan, np.inf, -np.inf))
def test_a_value_that_is_no_number_is_refused(absurd: float) -> None:
    with pytest.raises(DeepLearningError, match="must answer with numbers"):
        three_rows(Subject("value", ClassTable(())), [[1.0, absurd, np.nan]], (Layer("value"),))
    three_rows(Subject("value", ClassTable(())), [[1.0, 1.0, absurd]], (Layer("value"),))


def test_the_statistics_of_values_are_those_of_all_rows():
    values = np.random.default_rng(0).normal(7, 2, (1, 200, 3)).astype(np.float32)
    strip = Strip(Window(0, 200, 0, 3), values, np.ones((200, 3), dtype=bool))
    sheets = Sheets(Question(Subject("value", ClassTable(()))), [(Layer("value"), Sheet())], np.ones(200), 3)
    statistics = sheets.write([strip]).statistics
    assert statistics.count == 600
    assert statistics.mean == pytest.approx(values.mean(dtype=float))
    assert statistics.std == pytest.approx(values.std(dtype=float))


@pytest.mark.parametrize("behind", [0, 1, 3])
def test_strips_are_written_in_order_while_later_ones_are_computed(behind):
    rows = 40
    scores = np.random.default_rng(0).random((2, rows, 3)).astype(np.float32)
    done: list[int] = []
    seen: list[int] = []

    def strips():
        for first in range(0, rows, 4):
            seen.append(first // 4 - len(done))
            window = Window(first, first + 4, 0, 3)
            yield Strip(window, scores[:, first : first + 4], np.ones((4, 3), dtype=bool))

    sheet = Sheet()
    sheets = Sheets(
        Question(Subject("class", CLASSES)), [(Layer("class"), sheet)], np.ones(rows), 3,
        progress=lambda stop, total: done.append(stop), behind=behind,
    )  # fmt: skip
    sheets.write(strips())
    np.testing.assert_array_equal(np.array(sheet.rows), np.where(scores[1] > scores[0], 9, 4))
    assert done == list(range(4, rows + 1, 4))
    assert max(seen) <= behind


@pytest.mark.parametrize("behind", [0, 1])
def test_what_goes_wrong_while_writing_ends_the_stream(behind):
    class Full(Sheet):
        def write(self, rows):
            raise DeepLearningError("the disk is full")

    strip = Strip(Window(0, 1, 0, 1), np.ones((2, 1, 1), dtype=np.float32), np.ones((1, 1), dtype=bool))
    sheets = Sheets(Question(Subject("class", CLASSES)), [(Layer("class"), Full())], np.ones(9), 1, behind=behind)
    with pytest.raises(DeepLearningError, match="disk is full"):
        sheets.write(strip for _ in range(9))
