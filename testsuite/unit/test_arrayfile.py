"""Files of arrays: what is written is read, past the system's memory for files or through it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.arrayfile import Arrays, UncachedWriter, read_arrays, write_arrays


def some(scale: int) -> Arrays:
    random = np.random.default_rng(scale)
    return {
        "a": random.integers(0, 1000, (scale, 7)).astype(np.uint16),
        "b.ü": np.array(3.5),
        "empty": np.zeros((0, 4), np.float32),
        "turned": random.random((5, scale)).T,
    }


def assert_read(file: Path, wanted: Arrays) -> None:
    with open(file, "rb") as stream:
        found = read_arrays(stream)
    assert list(found) == list(wanted)
    np.testing.assert_equal(found, wanted, strict=True)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "plain", "wb", buffering=0) as stream:
        write_arrays(stream, some(9))
    assert_read(tmp_path / "plain", some(9))


def test_a_writer_takes_arrays_of_any_size_in_turn(tmp_path: Path) -> None:
    writer = UncachedWriter()
    for scale in (3, 40_000, 1, 500_000, 500):  # what is left of a longer file must not show
        writer.write(tmp_path / "file", some(scale))
        assert_read(tmp_path / "file", some(scale))
        assert len(writer._memory) < 2**24 + 4096


def test_a_file_system_that_cannot_write_past_its_memory_is_written_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, flags = os.open, []

    def refusing(file: Path, flag: int, mode: int) -> int:
        flags.append(flag)
        if flag & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(file, flag, mode)

    monkeypatch.setattr(os, "open", refusing)
    UncachedWriter().write(tmp_path / "file", some(50))
    monkeypatch.undo()
    assert len(flags) == 2 and flags[0] & os.O_DIRECT and not flags[1] & os.O_DIRECT
    assert_read(tmp_path / "file", some(50))


def test_a_full_disk_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        UncachedWriter().write(tmp_path / "file", some(5))


def test_a_write_of_a_part_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = os.write
    monkeypatch.setattr(os, "write", lambda target, data: written(target, data[:4096]))
    UncachedWriter().write(tmp_path / "file", some(5000))
    monkeypatch.undo()
    assert_read(tmp_path / "file", some(5000))
