"""Footprints of patches as a vector map, which appears together with the patch directory or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import grass.script as gs
import numpy as np
from grass.exceptions import CalledModuleError
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.session import mapset, remove_at_end, temporary_name
from rlearndeep.patches import PARTS
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.geometry import Region

# Overlapping footprints are cut into at most so many areas each; beyond that they become lines.
_PIECES_PER_PATCH = 64

_COLUMNS = (
    "cat integer",
    "part varchar(10)",
    "class integer",
    "label varchar(250)",
    "block integer",
    "acquisition integer",
    "labelled integer",
)


def write_footprints(
    index: NDArray, classes: ClassTable, region: Region, height: NDArray, width: NDArray
) -> tuple[str, str]:
    """Make a temporary vector of footprints, which :func:`publish` gives its name.

    Args:
        index: of the patch directory.
        height, width: rows and columns of imagery of each patch.

    Returns:
        The vector's name and what its features are: ``points``, ``areas`` or ``lines``.
    """
    name = temporary_name("footprints")
    remove_at_end("vector", name)
    kind, geometry = _geometry(index, region, height, width)
    file, sql = gs.tempfile(), gs.tempfile()
    try:
        with open(file, "w", encoding="utf-8") as stream:
            stream.writelines(geometry)
        with open(sql, "w", encoding="utf-8") as stream:
            stream.writelines(_statements(name, index, classes))
        _quietly("v.in.ascii", flags="n", input=file, output=name, format="standard")
        _quietly("db.execute", input=sql)
        _quietly("v.db.connect", flags="o", map=name, table=name, key="cat", layer=1)
    except CalledModuleError as error:
        raise DeepLearningError(
            f"The vector of footprints could not be written; {error.module} failed. Check the disk space and the "
            "database of the mapset with db.connect -p."
        ) from error
    finally:
        for path in (file, sql):
            gs.try_remove(path)
    return name, kind


def publish(temporary: str, name: str, command: Callable[[], None]) -> None:
    """Give the footprints their name and run ``command``, which puts the directory in its place.

    When either fails, both names stand for what they stood for before.
    """
    old = None
    if gs.find_file(name, element="vector", mapset=mapset())["file"]:
        old = temporary_name("replaced")
        _rename(name, old)
    try:
        _rename(temporary, name)
        gs.vector_history(name, replace=True)
        command()
    except BaseException:
        with suppress(CalledModuleError):
            _quietly("g.remove", flags="f", type="vector", name=name)
            if old:
                _rename(old, name)
        raise
    if old:
        with suppress(CalledModuleError):
            _quietly("g.remove", flags="f", type="vector", name=old)


def _rename(source: str, target: str) -> None:
    _quietly("g.rename", vector=f"{source},{target}")


def _quietly(module: str, **options) -> None:
    gs.run_command(module, quiet=True, overwrite=True, env={**os.environ, "GRASS_VERBOSE": "-1"}, **options)


def _statements(table: str, index: NDArray, classes: ClassTable) -> Iterator[str]:
    labels = ["'" + label.replace("'", "''").replace("\n", " ")[:250] + "'" for label in classes.labels]
    categories = classes.categories.tolist()
    yield f"BEGIN TRANSACTION;\nCREATE TABLE {table} ({', '.join(_COLUMNS)});\n"
    for row in zip(*(index[field].tolist() for field in ("id", "part", "class", "block", "labelled")), strict=True):
        number, part, position, block, labelled = row
        yield (
            f"INSERT INTO {table} VALUES ({number},'{PARTS[part]}',{categories[position]},{labels[position]},"
            f"{block},0,{labelled});\n"
        )
    yield "COMMIT;\n"


def _geometry(index: NDArray, region: Region, height: NDArray, width: NDArray) -> tuple[str, Iterator[str]]:
    if (height == 1).all() and (width == 1).all():
        return "points", _points(index)
    if (height == height[0]).all() and (width == width[0]).all():
        size = int(height[0]), int(width[0])
        step = tuple(math.gcd(side, *_offsets(index[axis])) for side, axis in zip(size, ("row", "col"), strict=True))
        if (size[0] // step[0]) * (size[1] // step[1]) <= _PIECES_PER_PATCH:
            return "areas", _lattice(index, region, size, (step[0], step[1]))
    if not _touch(index, height, width):
        return "areas", _rectangles(index, region, height, width, "B")
    return "lines", _rectangles(index, region, height, width, "L")


def _offsets(starts: NDArray) -> list[int]:
    return np.unique(starts - starts.min()).tolist()


def _touch(index: NDArray, height: NDArray, width: NDArray) -> bool:
    """True when footprints touch or overlap, as far as the largest of them tells."""
    if len(index) < 2:
        return False
    centres = np.column_stack([index["row"] + height / 2, index["col"] + width / 2])
    centres /= [height.max(), width.max()]
    nearest, _ = cKDTree(centres).query(centres, k=2, p=np.inf, distance_upper_bound=1 + 1e-9)
    return bool(np.isfinite(nearest[:, 1]).any())


def _points(index: NDArray) -> Iterator[str]:
    for number, east, north in zip(*(index[field].tolist() for field in ("id", "east", "north")), strict=True):
        yield f"P 1 1\n {east!r} {north!r}\n 1 {number}\n"


def _rectangles(index: NDArray, region: Region, height: NDArray, width: NDArray, kind: str) -> Iterator[str]:
    """Closed boundaries with centroids (kind B), or closed lines with categories (kind L)."""
    north, west = region.north - index["row"] * region.nsres, region.west + index["col"] * region.ewres
    south, east = north - height * region.nsres, west + width * region.ewres
    corners = zip(index["id"].tolist(), north.tolist(), south.tolist(), east.tolist(), west.tolist(), strict=True)
    for number, top, bottom, right, left in corners:
        ring = (
            f" {left!r} {top!r}\n {right!r} {top!r}\n {right!r} {bottom!r}\n {left!r} {bottom!r}\n {left!r} {top!r}\n"
        )
        if kind == "B":
            yield f"B 5\n{ring}C 1 1\n {(left + right) / 2!r} {(top + bottom) / 2!r}\n 1 {number}\n"
        else:
            yield f"L 5 1\n{ring} 1 {number}\n"


def _lattice(index: NDArray, region: Region, size: tuple[int, int], step: tuple[int, int]) -> Iterator[str]:
    """Areas of a lattice on which all footprints lie; where footprints overlap an area has several categories."""
    down, right = size[0] // step[0], size[1] // step[1]
    first_row, first_col = int(index["row"].min()), int(index["col"].min())
    row = (index["row"] - first_row) // step[0]
    col = (index["col"] - first_col) // step[1]
    cols = int(col.max()) + right + 1
    pieces_down, pieces_right = (grid.ravel() for grid in np.mgrid[0:down, 0:right])
    keys = ((row[:, None] + pieces_down) * cols + col[:, None] + pieces_right).ravel()
    ids = np.repeat(index["id"], down * right)
    order = np.lexsort((ids, keys))
    cells, starts = np.unique(keys[order], return_index=True)
    members = np.split(ids[order], starts[1:])

    def x(position: int) -> float:
        return region.west + (first_col + position * step[1]) * region.ewres

    def y(position: int) -> float:
        return region.north - (first_row + position * step[0]) * region.nsres

    for key in np.unique(np.concatenate([cells, cells + cols])).tolist():
        top, left = divmod(key, cols)
        yield f"B 2\n {x(left)!r} {y(top)!r}\n {x(left + 1)!r} {y(top)!r}\n"
    for key in np.unique(np.concatenate([cells, cells + 1])).tolist():
        top, left = divmod(key, cols)
        yield f"B 2\n {x(left)!r} {y(top)!r}\n {x(left)!r} {y(top + 1)!r}\n"
    for key, numbers in zip(cells.tolist(), members, strict=True):
        top, left = divmod(key, cols)
        categories = "".join(f" 1 {number}\n" for number in numbers.tolist())
        yield f"C 1 {len(numbers)}\n {x(left + 0.5)!r} {y(top + 0.5)!r}\n{categories}"
