"""Files that are whole or absent, and where they may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.files import appearing, check_place, write_text


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "table.csv"
    link.symlink_to(tmp_path / "elsewhere" / "real.csv")
    check_place(link, "matrix")
    write_text(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "real.csv").read_text() == "new"
    assert [entry.name for entry in (tmp_path / "elsewhere").iterdir()] == ["real.csv"]


def test_what_fails_leaves_the_older_file(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("old")
    with pytest.raises(ValueError, match="half"), appearing(file) as hidden:
        hidden.write_text("ne")
        raise ValueError("half of it")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("table.csv", "old")]


def test_only_a_file_is_replaced(tmp_path: Path) -> None:
    """To replace a device, such as /dev/stdout, would take it from all programs of the machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "lost").symlink_to(tmp_path / "absent" / "table.csv")
    for place in (tmp_path / "pipe", tmp_path / "link", tmp_path / "lost", tmp_path, Path(os.devnull)):
        with pytest.raises(DeepLearningError, match=r"The option report= names a file in a directory"):
            check_place(place, "report")


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_has_the_report(name: str) -> None:
    with pytest.raises(DeepLearningError, match=r"matrix= names a file; got '.*standard output has the report"):
        check_place(Path(name), "matrix")


def test_a_name_must_leave_room_for_that_of_the_unfinished_file(tmp_path: Path) -> None:
    check_place(tmp_path / ("x" * 240), "onnx")
    with pytest.raises(DeepLearningError, match="at most 240 bytes; got onnx=xxx"):
        check_place(tmp_path / ("x" * 241), "onnx")
