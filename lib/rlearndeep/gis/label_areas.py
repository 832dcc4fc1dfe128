"""Which area or point gave each label of a patch directory, and attributes written back to its features."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import grass.script as gs
import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import RasterStack
from rlearndeep.gis.session import command_line, mapset
from rlearndeep.gis.vectors import LabelVector, rasterize_areas, read_points
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.classes import UNLABELLED, ClassTable
from rlearndeep.scene.geometry import Region, Window

_CELLS_AT_ONCE = 1 << 24
_ROWS_AT_ONCE = 512
_LONGEST_IN_DBF = 10


Plane = Callable[[Window], NDArray[np.int32]]
"""Number of the feature of each cell of a window, 0 for none or several."""


def areas_of_labels(dataset: PatchDataset, vector: LabelVector) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The feature of each label: from the index of the directory, and from the map where a patch has several.

    Returns:
        The categories of the features, ascending, and for each label (a patch, a cell of one, or a class that is
        present in one) 1 + the position of its feature; 0 where several gave it, or none.

    Raises:
        DeepLearningError: the labels did not come from this vector.
    """
    manifest = dataset.manifest
    categories = np.array(sorted(vector.values), dtype=np.int64)
    area = dataset.index["area"]
    found = np.isin(area, categories)
    # The index says 0 where several areas gave a label, too; by these rules a single one always does.
    known = found if manifest.rule in ("object", "inside") else found & (area != 0)
    several = manifest.unit == "cell" or manifest.task == "presence"
    if (area[~found] != 0).any() or not (several or found.any()):
        raise DeepLearningError(
            f"Labels are judged in the vector they came from; '{dataset.path}' was made from other features than "
            f"those of layer {vector.layer} of <{vector.name}> ({manifest.command}). Give that vector and that layer=."
        )
    number = np.where(known, np.searchsorted(categories, area) + 1, 0).astype(np.int32)
    rows, cols = manifest.reference.shape
    if manifest.task == "presence":
        classes = _classes(vector, categories, manifest.classes)
        if (classes == UNLABELLED).all():
            raise DeepLearningError(
                f"The presence of a class is claimed by features that have its label; no label of <{vector.name}> is a "
                f"class of '{dataset.path}' ({manifest.command}). Give the column that holds these classes; if they "
                "were sampled at a coarser level (level=), write them to a column and sample from that."
            )
        with _in_region(manifest.region), _plane(vector, categories, manifest.region) as plane:
            return categories, _claims_of_presence(plane, dataset, classes)
    if manifest.unit == "patch" or ((rows, cols) == (1, 1) and (known == found).all()):
        return categories, number.reshape(-1, *manifest.label_shape)
    # Without a name the file is gone when the last array on it is.
    result = np.memmap(tempfile.TemporaryFile(), dtype=np.int32, shape=(len(dataset), rows, cols))  # noqa: SIM115
    for chosen in np.array_split(np.arange(len(dataset)), 1 + result.size // _CELLS_AT_ONCE):
        result[chosen] = number[chosen][:, None, None]
    with _in_region(manifest.region), _plane(vector, categories, manifest.region) as plane:
        _read_windows(plane, dataset, np.flatnonzero(~known), result)
    return categories, result


def _read_windows(plane: Plane, dataset: PatchDataset, positions: NDArray[np.int64], result: NDArray) -> None:
    """Fill in the windows of some patches."""
    for position, part in _windows(plane, dataset, positions):
        result[position][: part.shape[0], : part.shape[1]] = part


def _windows(
    plane: Plane, dataset: PatchDataset, positions: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Position and cells of some patches, in one sweep from the top."""
    region, (rows, cols) = dataset.manifest.region, dataset.manifest.reference.shape
    top, left = dataset.index["row"], dataset.index["col"]
    order = positions[np.argsort(top[positions], kind="stable")]
    start = 0
    while start < len(order):
        first = int(top[order[start]])
        stop = int(np.searchsorted(top[order], first + _ROWS_AT_ONCE))
        strip = plane(Window(first, int(top[order[stop - 1]]) + rows, 0, region.cols))
        for position in order[start:stop]:
            row, col = int(top[position]) - first, int(left[position])
            yield int(position), strip[row : row + rows, col : col + cols]
        start = stop


def _classes(vector: LabelVector, categories: NDArray[np.int64], classes: ClassTable) -> NDArray[np.int64]:
    """Class index of each feature, that of none first; ``UNLABELLED`` where its label is no class."""
    by_category: dict[object, int] = {entry.category: index for index, entry in enumerate(classes)}
    by_label: dict[object, int] = {entry.label.casefold(): index for index, entry in enumerate(classes) if entry.label}
    labels = [vector.values[category] for category in categories.tolist()]
    # A text may be a number, which is no category.
    found = (
        by_label.get(label.casefold(), UNLABELLED) if isinstance(label, str) else by_category.get(label, UNLABELLED)
        for label in labels
    )
    return np.array([UNLABELLED, *found], dtype=np.int64)


def _claims_of_presence(plane: Plane, dataset: PatchDataset, class_of: NDArray[np.int64]) -> NDArray[np.int32]:
    """For each patch and class that is present the one feature of that class in it, (patches, classes)."""
    result = np.zeros((len(dataset), len(dataset.manifest.classes)), dtype=np.int32)
    present = dataset.read_labels(np.arange(len(dataset))) == 1
    for position, part in _windows(plane, dataset, np.arange(len(dataset))):
        numbers = np.unique(part)
        classes = class_of[numbers]
        for index in np.flatnonzero(present[position]):
            mine = numbers[classes == index]
            if len(mine) == 1:
                result[position, index] = mine[0]
    return result


@contextmanager
def _plane(vector: LabelVector, categories: NDArray[np.int64], region: Region) -> Iterator[Plane]:
    if vector.kind == "point":
        yield _point_plane(vector, categories, region)
        return
    areas = rasterize_areas(vector)
    number = {feature: position for position, feature in enumerate(categories.tolist(), start=1)}
    members = [[number[feature] for feature in features if feature in number] for features in areas.features]
    numbers = np.array([*(found[0] if len(found) == 1 else 0 for found in members), 0], dtype=np.int32)
    with RasterStack([areas.name], region, dtype="int32") as stack:

        def read(window: Window) -> NDArray[np.int32]:
            values = stack.read(window)[0]
            inside = (values >= areas.first) & (values <= areas.last)
            return numbers[np.where(inside, values - areas.first, -1)]

        yield read


def _point_plane(vector: LabelVector, categories: NDArray[np.int64], region: Region) -> Plane:
    east, north, feature, _ = read_points(vector, region)
    row, col = region.cell_at(east, north)
    known = np.isin(feature, categories) & (row >= 0) & (row < region.rows) & (col >= 0) & (col < region.cols)
    cells, where, count = np.unique(row[known] * region.cols + col[known], return_index=True, return_counts=True)
    numbers = np.where(count == 1, np.searchsorted(categories, feature[known][where]) + 1, 0).astype(np.int32)
    row, col = np.divmod(cells, region.cols)

    def read(window: Window) -> NDArray[np.int32]:
        chosen = slice(*np.searchsorted(row, [window.row_start, window.row_stop]))
        plane = np.zeros(window.shape, dtype=np.int32)
        plane[row[chosen] - window.row_start, col[chosen] - window.col_start] = numbers[chosen]
        return plane

    return read


@contextmanager
def _in_region(region: Region) -> Iterator[None]:
    """Modules started inside work in this region; the user's stays as it is."""
    before = os.environ.get("GRASS_REGION")
    edges = {side[0]: repr(float(getattr(region, side))) for side in ("north", "south", "east", "west")}
    os.environ["GRASS_REGION"] = gs.region_env(**edges, rows=region.rows, cols=region.cols)
    try:
        yield
    finally:
        if before is None:
            del os.environ["GRASS_REGION"]
        else:
            os.environ["GRASS_REGION"] = before


def check_columns(vector: LabelVector, columns: Mapping[str, str], taken: Sequence[str], overwrite: bool) -> None:
    """Refuse columns that may not be written.

    Args:
        columns: names and SQL types.
        taken: columns that must stay as they are.

    Raises:
        DeepLearningError: the map lies in another mapset, or a column exists and may not be replaced.
    """
    plain, _, where = vector.name.partition("@")
    found = gs.find_file(vector.name, element="vector")
    home = where or found["mapset"]
    if home != mapset():
        raise DeepLearningError(
            f"Columns are written to vectors of the current mapset <{mapset()}> only; <{plain}> lies in <{home}>. "
            f"Copy it with g.copy vector={plain}@{home},{plain} first."
        )
    existing = {name.lower(): entry["type"] for name, entry in gs.vector_columns(vector.name, vector.layer).items()}
    database = gs.vector_db(vector.name)[int(vector.layer)]
    key = database["key"]
    for name, kind in columns.items():
        if not name.isidentifier() or not name.isascii():
            raise DeepLearningError(
                f"The name of a column has letters, digits and underscores; got '{name}'. Choose another name."
            )
        if database["driver"] == "dbf" and len(name) > _LONGEST_IN_DBF:
            raise DeepLearningError(
                f"Columns of a dbf table have names of {_LONGEST_IN_DBF} characters at most; <{name}> of "
                f"<{vector.name}> has {len(name)}. Choose SQLite with db.connect -d, copy the map with g.copy, and "
                "give the copy."
            )
        if name.lower() in {column.lower() for column in (*taken, key)}:
            raise DeepLearningError(f"Labels are judged, not replaced; the column <{name}> is in use. Choose another.")
        if name.lower() not in existing:
            continue
        if not overwrite:
            raise DeepLearningError(
                f"A column is not replaced unasked; <{vector.name}> has <{name}>. Choose another name or add "
                "--overwrite."
            )
        if _family(existing[name.lower()]) != _family(kind):
            raise DeepLearningError(
                f"A column that is written again must be of type {kind}; <{name}> of <{vector.name}> is "
                f"{existing[name.lower()]}. Remove it with v.db.dropcolumn, or choose another name."
            )
    if database["driver"] == "sqlite":
        _check_words(columns, database["database"])


def _check_words(names: Iterable[str], database: str) -> None:
    """Refuse names that SQLite takes for words of its own; better now than after all trainings."""
    sql = "SELECT " + ", ".join(f"1 AS {name}" for name in names)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if gs.start_command("db.select", sql=sql, driver="sqlite", database=database, **silent).wait():
        raise DeepLearningError(
            f"The name of a column is no word of SQL; one of {', '.join(names)} is. Choose another name."
        )


def write_columns(vector: LabelVector, columns: Mapping[str, str], rows: Mapping[int, Sequence]) -> None:
    """Write values to columns, in one transaction; features without a row get NULL.

    Args:
        columns: names and SQL types; missing ones are added.
        rows: a value per column, by category; None is NULL.

    Raises:
        DeepLearningError: the database refused.
    """
    existing = {name.lower() for name in gs.vector_columns(vector.name, vector.layer)}
    missing = [f"{name} {kind}" for name, kind in columns.items() if name.lower() not in existing]
    if missing:
        _done(
            vector,
            gs.start_command(
                "v.db.addcolumn",
                map=vector.name,
                layer=vector.layer,
                columns=",".join(missing),
                quiet=True,
                stderr=subprocess.PIPE,
                universal_newlines=True,
            ),
        )
    database = gs.vector_db(vector.name)[int(vector.layer)]
    table, key = database["table"], database["key"]
    lines = [f"UPDATE {table} SET {', '.join(f'{name} = NULL' for name in columns)}"]
    for category, values in rows.items():
        pairs = ", ".join(f"{name} = {_literal(value)}" for name, value in zip(columns, values, strict=True))
        lines.append(f"UPDATE {table} SET {pairs} WHERE {key} = {category}")
    process = gs.start_command(
        "db.execute",
        input="-",
        driver=database["driver"],
        database=database["database"],
        quiet=True,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,  # what GRASS 8.5 does unasked, and older ones do not
    )
    _done(vector, process, ";\n".join(lines) + ";\n")
    gs.run_command("v.support", map=vector.name, cmdhist=command_line(), quiet=True)


def _done(vector: LabelVector, process: subprocess.Popen[str], statements: str | None = None) -> None:
    """Wait for a module that changes a table."""
    _, errors = process.communicate(statements)
    if process.returncode:
        raise DeepLearningError(
            f"The table of <{vector.name}> must be writable; the database says: "
            f"{' '.join(errors.split())[:200]}. Check it with db.connect -p and v.db.connect."
        )


def _family(kind: str) -> str:
    kind = kind.upper()
    if kind.startswith(("DOUBLE", "FLOAT", "REAL", "NUMERIC", "DECIMAL")):
        return "number"
    return "integer" if kind.startswith(("INT", "BIGINT", "SMALLINT")) else "text"


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\n", " ") + "'"
    return repr(value)
