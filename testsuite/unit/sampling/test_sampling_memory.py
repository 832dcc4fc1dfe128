"""What sampling holds at once depends on ``memory``, not on the raster."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from rlearndeep.patches import PatchDataset, PatchWriter
from rlearndeep.sampling.labels import raster_table
from rlearndeep.sampling.plan import describe, make_plan, write_plan
from rlearndeep.sampling.settings import Settings, Split
from rlearndeep.scene.bands import Band
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.geometry import Region, Window

COLS, BANDS = 1000, 3
MEMORY = 8


class EndlessScene:
    """Bands, and labels in stripes of ten rows, that are made up when they are read."""

    dtype = np.dtype(np.uint16)
    null = np.iinfo(np.int32).min
    repeats = False
    bands = tuple(Band(f"b{number}") for number in range(BANDS))

    def __init__(self, rows: int) -> None:
        self.region = Region(float(rows), 0.0, float(COLS), 0.0, rows, COLS)

    def read(self, window: Window) -> np.ndarray:
        """Numbers that hardly repeat."""
        row, col = np.ogrid[window.row_start : window.row_stop, window.col_start : window.col_stop]
        return np.stack([((row * 7919 + col * 104_729) ** 2 + band) % 59_999 for band in range(BANDS)]).astype(np.int32)

    def read_nulls(self, window: Window) -> np.ndarray:
        """None."""
        return np.zeros(window.shape, dtype=bool)

    def read_codes(self, window: Window) -> np.ndarray:
        """Codes 2 and 3."""
        rows = np.arange(window.row_start, window.row_stop) // 10 % 2 + 2
        return np.repeat(rows[:, None], window.cols, axis=1).astype(np.int32)

    def read_ignored(self, window: Window) -> None:
        """Every label is used."""
        return


def sample(rows: int, path, **wishes) -> tuple[int, PatchDataset]:
    """Bytes at the highest point, and the patches."""
    scene = EndlessScene(rows)
    table = raster_table(ClassTable((MapClass(1, ""), MapClass(2, ""))), 1, 2)
    asked = Settings(number=200, split=Split(kind="none"), memory=MEMORY, **wishes)
    tracemalloc.start()
    plan = make_plan([scene], table, asked)
    with PatchWriter(path, describe(plan, [scene], asked), len(plan.patches)) as writer:
        plan, _ = write_plan(plan, [scene], asked, writer)
        writer.commit(describe(plan, [scene], asked))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, PatchDataset.open(path)


@pytest.mark.parametrize("size", [(1, 1), (16, 16)])
def test_the_length_of_a_raster_costs_no_memory(tmp_path, size):
    short, _ = sample(600, tmp_path / "short", size=size)
    long, dataset = sample(6000, tmp_path / "long", size=size)
    assert len(dataset) == 200
    assert long < MEMORY * 1e6
    assert long < 1.2 * short
