"""Footprints of patches as a vector map, which appears together with the patch directory or not at all."""

from __future__ import annotations

import itertools
import math
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import grass.script as gs
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.session import deaf, mapset, remove_at_end, temporary_name
from rlearndeep.patches import PARTS, PatchWriter
from rlearndeep.scene.geometry import Region

# Overlapping footprints are cut into at most so many areas each; beyond that they become lines.
_PIECES_PER_PATCH = 64

# Bytes of what db.execute reads at once; statements of one row each take the database ten times as long.
_LONGEST_STATEMENT = 4000

# Other drivers of GRASS do not know transactions, or rows of several features, or write them in another way.
_DRIVERS_OF_MANY_ROWS = ("sqlite", "pg")

_LEGAL_NAME = re.compile(r"(?!(and|or|not)$)[a-z][a-z0-9_]*", re.IGNORECASE)

# A text that does not fit is cut.
_LONGEST_TEXT = 250


def check_output(name: str, inputs: Sequence[str]) -> None:
    """Refuse a name that the vector of footprints cannot have.

    Args:
        inputs: vectors of the user that are read, with or without mapset; empty texts do not count.

    Raises:
        DeepLearningError: GRASS does not take the name for a vector, or it is that of an input.
    """
    if not _LEGAL_NAME.fullmatch(name):
        raise DeepLearningError(
            "The name of a new vector map begins with a letter, and has letters, digits and underscores only; got "
            f"output={name}. Choose another name."
        )
    for vector in filter(None, inputs):
        found = gs.find_file(vector, element="vector")
        if (found["name"], found["mapset"]) == (name, mapset()):
            raise DeepLearningError(
                f"Footprints must not replace the labels they come from; output= and the labels are both <{name}>. "
                "Choose another output=."
            )


def attributes(writer: PatchWriter, acquisitions: Sequence[str]) -> dict[str, list]:
    """Columns of the table of footprints with a value per patch; None is null.

    Which columns there are depends on what a label says: a class and its label (of a label per cell the
    commonest), all classes present, or a value (of a label per cell the mean of the labelled ones).

    Args:
        writer: holds the patches.
        acquisitions: names, in the order of the index's numbers.
    """
    index, manifest = writer.index, writer.manifest
    labels = manifest.classes.labels
    columns: dict[str, list] = {"part": [PARTS[number] for number in index["part"]]}
    if manifest.task == "value":
        columns["value"] = _means(np.asarray(writer.labels))
    elif len(manifest.classes):
        columns["class"] = manifest.classes.categories[index["class"]].tolist()
        columns["label"] = [labels[number] for number in index["class"]]
    if manifest.task == "presence":
        present = np.asarray(writer.labels) == 1
        columns["label"] = [", ".join(labels[number] for number in np.flatnonzero(row)) for row in present]
    columns["block"] = index["block"].tolist()
    columns["acquisition"] = [acquisitions[number] for number in index["acquisition"]]
    columns["labelled"] = index["labelled"].tolist()
    return columns


def _means(labels: NDArray[np.float32]) -> list[float | None]:
    cells = labels.reshape(len(labels), -1)
    known = ~np.isnan(cells)
    counts = known.sum(axis=1)
    sums = np.where(known, cells, 0).sum(axis=1, dtype=np.float64)
    return [total / count if count else None for total, count in zip(sums.tolist(), counts.tolist(), strict=True)]


def write_footprints(
    writer: PatchWriter, acquisitions: Sequence[str], height: NDArray, width: NDArray, name: str
) -> tuple[str, str]:
    """Make a vector of footprints, complete but for its name, which :func:`publish` gives it.

    Args:
        writer: holds the patches.
        acquisitions: names, in the order of the index's numbers.
        height, width: rows and columns of imagery of each patch.
        name: that it will have; its table has it at once, or one like it where a table of that name stands.

    Returns:
        The vector's present name and what its features are: ``points``, ``areas`` or ``lines``.
    """
    hidden = temporary_name("footprints")
    remove_at_end("vector", hidden)
    kind, geometry = _geometry(writer.index, writer.manifest.region, height, width)
    file, sql = gs.tempfile(), gs.tempfile()
    table, made = _free_table(name), []

    def make_table() -> None:
        _quietly("db.execute", input=sql)
        made.append(table)

    try:
        with open(file, "w", encoding="utf-8") as stream:
            stream.writelines(geometry)
        with open(sql, "w", encoding="utf-8") as stream:
            stream.writelines(_statements(table, writer.index["id"].tolist(), attributes(writer, acquisitions)))
        with ThreadPoolExecutor(1) as pool:
            filled = pool.submit(make_table)
            _quietly("v.in.ascii", flags="n", input=file, output=hidden, format="standard")
            filled.result()
        _quietly("v.db.connect", map=hidden, table=table, key="cat", layer=1)
    except BaseException:
        if made or not _knows_transactions():  # else nothing was made, and a table of that name is another run's
            with deaf():
                gs.run_command(
                    "db.droptable", flags="f", table=table, quiet=True, errors="ignore", stderr=subprocess.DEVNULL
                )
        raise
    finally:
        for path in (file, sql):
            gs.try_remove(path)
    gs.vector_history(hidden, replace=True)
    return hidden, kind


def _free_table(name: str) -> str:
    """The name, or the first one like it that no table has; of a vector to be replaced the table still stands."""
    # Databases take capitals and small letters for the same.
    listing = gs.read_command("db.tables", flags="p", quiet=True, errors="ignore", stderr=subprocess.DEVNULL)
    taken = set(listing.lower().split())
    numbered = (f"{name}_{number}" for number in range(1, len(taken) + 3))
    return next(free for free in itertools.chain([name], numbered) if free.lower() not in taken and _is_free_word(free))


def _is_free_word(name: str) -> bool:
    """False for words that mean something in SQL, such as *order*."""
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute(f"CREATE TABLE {name} (cat integer)")
        except sqlite3.Error:
            return False
    return True


def publish(temporary: str, name: str, command: Callable[[], None]) -> None:
    """Give the footprints their name and run ``command``, which puts the directory in its place.

    Nothing but names of directories changes, so that a kill hardly ever comes in between. When either fails, both
    names stand for what they stood for before.

    Raises:
        DeepLearningError: another process made a vector of that name meanwhile, which may not be replaced.
    """
    new, place, old = (_home() / vector for vector in (temporary, name, temporary_name("replaced")))
    replaces = place.exists()
    if replaces and not gs.overwrite():
        raise DeepLearningError(
            f"A vector map is not replaced unasked; <{name}> was made while this run was under way. Choose another "
            "output=, or add --overwrite."
        )
    if replaces:
        place.rename(old)
    try:
        new.rename(place)
        command()
    except BaseException:
        if place.exists():
            place.rename(new)
        if replaces:
            old.rename(place)
        raise
    if replaces:
        with suppress(DeepLearningError):
            _quietly("g.remove", flags="f", type="vector", name=old.name)


def _home() -> Path:
    """Directory of the vectors of the current mapset."""
    env = gs.gisenv()
    return Path(env["GISDBASE"], env["LOCATION_NAME"], env["MAPSET"], "vector")


def _quietly(module: str, **options) -> None:
    """Run a module whose chatter is no message of ours."""
    env = {**os.environ, "GRASS_VERBOSE": "-1"}
    process = gs.start_command(module, quiet=True, overwrite=True, env=env, stderr=subprocess.PIPE, **options)
    _, errors = process.communicate()
    if process.returncode:
        words = " ".join(gs.decode(errors).replace("ERROR:", "").split())
        raise DeepLearningError(
            f"The vector of footprints must be writable; {module} failed ({words[:300]}). Check the disk space and the "
            "database of the mapset with db.connect -p."
        )


def _statements(table: str, numbers: Sequence[int], columns: Mapping[str, list]) -> Iterator[str]:
    """What makes the table and fills it, as the database of the mapset understands it."""
    many = _knows_transactions()
    longest = _LONGEST_STATEMENT if many else 0
    types = ", ".join(f"{name} {_sql_type(values)}" for name, values in columns.items())
    yield f"{'BEGIN TRANSACTION;' if many else ''}\nCREATE TABLE {table} (cat integer, {types});\n"
    statement = ""
    for number, *row in zip(numbers, *columns.values(), strict=True):
        values = f"({number},{','.join(map(_sql, row))})"
        if statement and len((statement + values).encode()) > longest:
            yield f"{statement};\n"
            statement = ""
        statement = f"{statement},{values}" if statement else f"INSERT INTO {table} VALUES {values}"
    yield f"{statement};\n{'COMMIT;' if many else ''}\n"


def _knows_transactions() -> bool:
    return gs.db_connection(force=True)["driver"] in _DRIVERS_OF_MANY_ROWS


def _sql_type(values: list) -> str:
    kinds = {type(value) for value in values if value is not None}
    return "integer" if kinds == {int} else f"varchar({_LONGEST_TEXT})" if kinds == {str} else "double precision"


def _sql(value: float | str | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\n", " ")[:_LONGEST_TEXT] + "'"
    return repr(value)


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
