"""The HTML report: whole in itself, and no text of a map becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from rlearndeep.accuracy import report
from rlearndeep.accuracy.metrics import scores
from rlearndeep.scene.classes import ClassTable, MapClass

EVIL = "<script>alert('&')</script>"
TABLE = ClassTable((MapClass(1, EVIL), MapClass(2, "b")))
MATRIX = [[6, 2], [0, 4]]


def result_of(**more) -> dict:
    entry = {"map": f"m{EVIL}", "units": 12, "null": 0, **scores(MATRIX, TABLE)}
    head = {"kind": "classes", "reference": EVIL, "reference_kind": "raster", "unit": "cells", "area_unit": "m2"}
    return {**head, "maps": [{**entry, **more}], "comparisons": []}


class Reader(HTMLParser):
    """Collects tags, addresses and the text of a page; refuses tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_labels_and_names_are_text_and_nothing_is_loaded_from_elsewhere():
    page = read(report.html_report(result_of(), [], f"r.learn.deep.evaluate input={EVIL}"))
    assert "script" not in page.seen and "link" not in page.seen
    assert page.text.count(EVIL) >= 4  # command, reference, map, class
    assert page.addresses and all(address.startswith("data:image/png;base64,") for address in page.addresses)


def test_rows_of_the_picture_are_shares_of_the_reference():
    figure = report._matrix_figure(result_of()["maps"][0])
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0.0, 1.0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("map", "reference")
    assert [text.get_text() for text in axes.texts] == ["0.75", "0.25", "0.00", "1.00"]


def test_bars_are_both_accuracies_of_each_class():
    bars = report._class_figure(result_of()["maps"][0]).axes[0].patches
    assert [round(bar.get_width(), 3) for bar in bars] == [1.0, 0.667, 0.75, 1.0]


def test_a_value_report_shows_the_map_over_the_reference():
    counts = np.zeros((4, 4), np.int64)
    counts[3, 0] = 5  # high in the map, low in the reference
    values = {"map": "v", "units": 5, "null": 0, "rmse": 3.0, "mae": 3.0, "bias": 3.0, "r2": None}
    result = {**result_of(), "kind": "values", "maps": [values]}
    page = read(report.html_report(result, [((0.0, 4.0), counts)], "x"))
    assert "RMSE" in page.text and "-" in page.text
    axes = report._scatter_figure((0.0, 4.0), counts).axes[0]
    assert axes.images[0].origin == "lower" and (axes.get_xlabel(), axes.get_ylabel()) == ("reference", "map")


def test_labels_are_drawn_as_they_are_and_no_longer_than_there_is_room(recwarn):
    names = ("cost in $ and $^", "森林", "long " * 40)
    table = ClassTable(tuple(MapClass(number, name) for number, name in enumerate(names)))
    entry = {"map": "m", "units": 3, "null": 0, **scores(np.eye(3, dtype=int), table)}
    assert read(report.html_report({**result_of(), "maps": [entry]}, [], "x")).addresses
    drawn = [text.get_text() for text in report._matrix_figure(entry).axes[0].get_yticklabels()]
    assert drawn == ["0 cost in $ and $^", "1 森林", "2 long long long long long lo…"]
    assert not recwarn


def test_pictures_of_many_classes_stay_small():
    table = ClassTable(tuple(MapClass(number, "") for number in range(300)))
    entry = scores(np.eye(300, dtype=int), table)
    for figure in (report._matrix_figure(entry), report._class_figure(entry)):
        assert max(figure.get_size_inches()) <= 36
        assert len(figure.axes[0].get_yticks()) < 20


@pytest.mark.parametrize("classes", [1, 60])
def test_any_number_of_classes_can_be_drawn(classes):
    table = ClassTable(tuple(MapClass(number, "") for number in range(classes)))
    entry = {"map": "m", "units": classes, "null": 0, **scores(np.eye(classes, dtype=int), table)}
    assert read(report.html_report({**result_of(), "maps": [entry]}, [], "x")).addresses
