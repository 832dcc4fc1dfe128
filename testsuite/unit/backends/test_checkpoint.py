"""The files of a checkpoint."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from rlearndeep.backends import checkpoint
from rlearndeep.backends.checkpoint import Checkpoint, Writer
from rlearndeep.errors import DeepLearningError


def state(epochs: int, best_epoch: int, width: int = 3) -> Checkpoint:
    weights, best = (
        {"a": np.full((2, width), number, np.float32), "b.c": np.array(number)} for number in (epochs, best_epoch)
    )
    values = {"history": [{"epoch": epochs}], 7: [np.arange(epochs), None, 0.25, {"deep": np.float64(epochs)[None]}]}
    return Checkpoint(epochs, best_epoch, weights, best, values)


def assert_is(found: Checkpoint | None, wanted: Checkpoint) -> None:
    assert found is not None and (found.epochs, found.best_epoch) == (wanted.epochs, wanted.best_epoch)
    np.testing.assert_equal(
        [found.weights, found.best, found.values], [wanted.weights, wanted.best, wanted.values], strict=True
    )
    assert all(found.weights[name].dtype == array.dtype for name, array in wanted.weights.items())


def written(folder: Path, *states: Checkpoint) -> None:
    with Writer(folder, pytest.fail) as writer:
        for one in states:
            writer.write(one)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path) is None and checkpoint.epochs_done(tmp_path) == 0
    for best_epoch in (1, 2):
        written(tmp_path, state(1, 1), state(2, best_epoch))
        assert_is(checkpoint.read(tmp_path), state(2, best_epoch))
        assert checkpoint.epochs_done(tmp_path) == 2
    checkpoint.clear(tmp_path)
    assert checkpoint.read(tmp_path) is None and not list(tmp_path.iterdir())


def test_files_of_epochs_before_are_written_over(tmp_path: Path) -> None:
    nodes: dict[str, int] = {}
    sizes: dict[str, int] = {}
    with Writer(tmp_path, pytest.fail) as writer:
        for epoch in range(1, 6):
            writer.write(state(epoch, 1, width=9 - epoch))  # shorter each time: nothing of the old file may stay
            writer._wait()
            nodes |= {file.name: file.stat().st_ino for file in tmp_path.glob("*.arrays")}
            sizes |= {file.name: file.stat().st_size for file in tmp_path.glob("*.arrays")}
            assert_is(
                checkpoint.read(tmp_path),
                Checkpoint(**{**vars(state(epoch, 1, 9 - epoch)), "best": state(1, 1, 8).best}),
            )
    assert all(sizes[f"weights-{epoch}.arrays"] > sizes[f"weights-{epoch + 1}.arrays"] for epoch in range(1, 5))
    assert nodes["rest-1.arrays"] == nodes["rest-3.arrays"] == nodes["rest-5.arrays"] != nodes["rest-4.arrays"]
    assert nodes["weights-2.arrays"] == nodes["weights-4.arrays"] != nodes["weights-1.arrays"]
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["rest-5.arrays", "state.json", "weights-1.arrays", "weights-5.arrays"]


def test_a_process_that_only_helps_leaves_the_files_of_the_first_one(tmp_path: Path) -> None:
    with Writer(tmp_path, pytest.fail) as first:
        for epoch in (1, 2):
            first.write(state(epoch, epoch))
        first._wait()
        spare = sorted(tmp_path.glob("*.spare"))
        with Writer(tmp_path, pytest.fail):
            pass
        assert spare and sorted(tmp_path.glob("*.spare")) == spare
    assert not list(tmp_path.glob("*.spare"))


def test_a_file_with_a_pickle_is_damaged(tmp_path: Path) -> None:
    written(tmp_path, state(1, 1))
    with open(tmp_path / "rest-1.arrays", "wb") as stream:
        np.save(stream, np.frombuffer(b'["0"]', dtype=np.uint8))
        np.save(stream, np.array([re.compile("x")], dtype=object))
    with pytest.raises(DeepLearningError, match=r"must be whole.*Object arrays cannot be loaded.* Start again"):
        checkpoint.read(tmp_path)


def test_a_damaged_header_is_refused_in_one_line(tmp_path: Path) -> None:
    written(tmp_path, state(1, 1))
    file = tmp_path / "weights-1.arrays"
    data = file.read_bytes()
    refused = 0
    for place, bit in itertools.product(range(256), (0, 1, 4, 6)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        file.write_bytes(bytes(damaged))
        try:
            checkpoint.read(tmp_path)
        except DeepLearningError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 64
