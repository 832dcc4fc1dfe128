"""Label vectors: their attributes, their areas as a raster, their points as coordinates."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import grass.script as gs
import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.gis.rasters import turned_into
from rlearndeep.gis.session import remove_at_end, temporary_name
from rlearndeep.scene.classes import Color
from rlearndeep.scene.geometry import Region

COLOR_COLUMN = "GRASSRGB"

# Categories that span less than this are read from one raster; others are numbered anew first.
_CATEGORY_SPAN = 1_000_000


@dataclass(frozen=True)
class LabelVector:
    """Features of a label vector, as far as a condition selects them.

    Attributes:
        name: of the map.
        layer: number of the layer.
        kind: ``area`` or ``point``.
        values: of the label column per feature; None where null.
        colors: per feature that has one.
        groups: value of the split column as text per feature; empty without that column.
        type: of the label column, as the database names it.
        beside: number of points that count for nothing beside areas.
    """

    name: str
    layer: str
    kind: str
    values: dict[int, int | str | None]
    colors: dict[int, Color | None]
    groups: dict[int, str | None]
    type: str = "INTEGER"
    beside: int = 0

    @property
    def is_floating(self) -> bool:
        """True when the label column holds floating point numbers."""
        return self.type.upper().startswith(("DOUBLE", "FLOAT", "REAL", "NUMERIC", "DECIMAL"))

    def numbers(self) -> dict[int, float]:
        """Value of each feature that has one, of a column of numbers."""
        return {feature: float(value) for feature, value in self.values.items() if value is not None and value != ""}

    @property
    def unlabelled(self) -> int:
        """Number of features whose label is null."""
        return sum(value is None or value == "" for value in self.values.values())


def open_places(name: str, layer: str, where: str = "") -> LabelVector:
    """Features of a vector whose places alone count, each with the value 1; a table is needed for a condition only.

    Raises:
        DeepLearningError: no such map, features of no use, or a condition that is no SQL or selects nothing.
    """
    _check_exists(name)
    kind, _ = _kind(name)
    if where:
        return open_features(name, layer, _database(name, layer)["key"], where)
    if not layer.isdecimal():
        raise DeepLearningError(
            f"layer= is the number of a layer; got '{layer}'. See the layers of <{name}> with v.category option=report."
        )
    listing = gs.read_command("v.category", input=name, option="print", layer=layer, type="point", quiet=True)
    features = sorted({feature for line in listing.splitlines() for feature in _categories(line)})
    if kind == "point" and not features:
        raise DeepLearningError(
            f"Points need categories in layer {layer}; <{name}> has none there. Add them with v.category."
        )
    return LabelVector(name, layer, kind, dict.fromkeys(features, 1), dict.fromkeys(features), {})


def _check_exists(name: str) -> None:
    if not gs.find_file(name, element="vector")["file"]:
        raise DeepLearningError(
            f"Vector map <{name}> must exist; it was not found in the search path. Check the name with g.list vector."
        )


def _database(name: str, layer: str) -> dict:
    """The connection of a layer with its table."""
    layers = gs.vector_db(name)
    if not layer.isdecimal() or int(layer) not in layers:
        raise DeepLearningError(
            f"A label vector needs an attribute table; layer {layer} of <{name}> has none. Choose another layer= or "
            "add one with v.db.addtable."
        )
    return layers[int(layer)]


def open_features(name: str, layer: str, column: str, where: str = "", split_column: str = "") -> LabelVector:
    """Kind and attributes of a vector, whose label column may hold floating point numbers.

    Raises:
        DeepLearningError: no such map, layer, table or column; a column that is null in all features; a
            condition that is no SQL or selects nothing.
    """
    _check_exists(name)
    kind, beside = _kind(name)
    _database(name, layer)
    types = {key.lower(): value["type"] for key, value in gs.vector_columns(name, layer).items()}
    for wanted in filter(None, (column, split_column)):
        if wanted.lower() not in types:
            raise DeepLearningError(
                f"A column must exist in the table of <{name}>; <{wanted}> does not. It has: {', '.join(types)}."
            )
    rows = _select(name, layer, column, where, split_column, COLOR_COLUMN.lower() in types)
    values = {feature: _value(row[0]) for feature, row in rows.items()}
    if all(value is None or value == "" for value in values.values()):
        raise DeepLearningError(
            f"A label column needs a value in at least one feature; all {len(values)} of <{column}> of <{name}> are "
            "null. Choose another column=."
        )
    groups = {feature: None if row[1] is None else _line(row[1]) for feature, row in rows.items()}
    if split_column and not any(groups.values()):
        raise DeepLearningError(
            f"A split column needs a value in at least one feature; all of <{split_column}> of <{name}> are null. "
            "Choose another split_column=."
        )
    colors = {feature: _color(row[2]) for feature, row in rows.items()}
    return LabelVector(name, layer, kind, values, colors, groups if split_column else {}, types[column.lower()], beside)


def _kind(name: str) -> tuple[str, int]:
    """Areas or points, and how many points there are beside areas."""
    topology = gs.vector_info_topo(name)
    if topology["centroids"]:
        return "area", int(topology["points"])
    if topology["points"]:
        return "point", 0
    raise DeepLearningError(
        f"A label vector holds areas or points; <{name}> holds neither. Make areas of lines with "
        "v.type and v.centroids."
    )


def _select(name: str, layer: str, column: str, where: str, split_column: str, has_color: bool) -> dict[int, tuple]:
    """Label, group and colour as stored, per feature."""
    key = gs.vector_db(name)[int(layer)]["key"]
    wanted = [key, column, split_column or key, COLOR_COLUMN if has_color else key]
    listing = _listed(name, layer, list(dict.fromkeys(wanted)), where)
    records = [{field.lower(): value for field, value in record.items()} for record in listing]
    if not records:
        raise DeepLearningError(
            f'where= must select at least one feature of <{name}>; "{where}" selects none. Check it with v.db.select.'
            if where
            else f"A label vector needs features with attributes; the table of <{name}> is empty. Fill it."
        )
    fields = [field.lower() for field in wanted]
    rows: dict[int, tuple] = {}
    for record in records:
        if record[fields[0]] is None:
            continue
        row = (
            record[fields[1]],
            record[fields[2]] if split_column else None,
            record[fields[3]] if has_color else None,
        )
        feature = int(record[fields[0]])
        if rows.setdefault(feature, row) != row:
            raise DeepLearningError(
                f"A feature has one row in the table, or several that say the same; category {feature} of <{name}> has "
                f"'{rows[feature][0]}' and '{row[0]}' in <{column}>. Choose one with where=, or correct the table."
            )
    return rows


def _listed(name: str, layer: str, columns: list[str], where: str) -> list[dict]:
    """Records of the table, values by columns."""
    options = {"where": where} if where else {}
    process = gs.start_command(
        "v.db.select",
        map=name,
        layer=layer,
        columns=columns,
        format="json",
        quiet=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
    try:
        listing, errors = process.communicate()
        if process.returncode == 0:
            return json.loads(listing)["records"]
    except ValueError as error:
        raise DeepLearningError(
            f"Texts of a table must be in UTF-8, and numbers finite; the columns {', '.join(columns)} of <{name}> hold "
            f"others ({error}). Import the map with the encoding it has (v.in.ogr encoding=), or correct the values "
            "with v.db.update."
        ) from error
    if where:
        raise DeepLearningError(
            f'where= must be a condition of SQL on the table of <{name}>; got "{where}" '
            f"({_last_words(errors)}). Check it with v.db.select."
        )
    raise DeepLearningError(
        f"Columns must be readable by name; the database does not give {', '.join(columns)} of <{name}> "
        f"({_last_words(errors)}). A word of SQL is no name for a column: rename it with v.db.renamecolumn."
    )


def _last_words(errors: bytes) -> str:
    text = " ".join(gs.decode(errors).split()).replace("ERROR:", "").replace("DBMI-SQLite driver error:", "")
    return " ".join(text.split()[:20])


def _value(value: object) -> int | str | None:
    if value is None or isinstance(value, int):
        return value
    return _line(value)


def _line(value: object) -> str:
    """A value as the one line of text that categories of rasters, options and reports can hold."""
    return " ".join(str(value).splitlines()).strip()


def _color(text: object) -> Color | None:
    parts = str(text).split(":") if text else []
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) <= 255 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])


@dataclass(frozen=True)
class AreaRaster:
    """Areas as a temporary CELL raster in the current region; a cell belongs to the area that holds its centre.

    Attributes:
        name: of the raster, removed when the tool ends.
        features: the features that meet in each value, for the values from ``first`` on.
        first: smallest value.
    """

    name: str
    features: tuple[tuple[int, ...], ...]
    first: int

    @property
    def last(self) -> int:
        """Largest value."""
        return self.first + len(self.features) - 1


def rasterize_areas(vector: LabelVector) -> AreaRaster:
    """All areas of a layer, selected or not, and what lies in each of their cells.

    Where areas overlap, GRASS's topology has an area of its own with several categories, of which a raster could
    hold one only. Such vectors are numbered anew, piece by piece, on a temporary copy.
    """
    pieces = [cats for cats in _centroid_categories(vector.name, vector.layer) if cats]
    if not pieces:
        raise DeepLearningError(
            f"Areas need categories in layer {vector.layer}; <{vector.name}> has none there. Choose another layer=, or "
            "import the map with v.in.ogr if it is only linked (v.external)."
        )
    output = temporary_name("areas")
    remove_at_end("raster", output)
    single = sorted({cats[0] for cats in pieces})
    if all(len(cats) == 1 for cats in pieces) and single[0] >= 0 and single[-1] - single[0] < _CATEGORY_SPAN:
        _to_raster(vector.name, vector.layer, output)
        return AreaRaster(output, tuple((cat,) for cat in range(single[0], single[-1] + 1)), single[0])
    copy = temporary_name("pieces")
    remove_at_end("vector", copy)
    numbering = str(int(vector.layer) + 1)
    gs.run_command(
        "v.category", input=vector.name, output=copy, option="del", layer=numbering, cat=-1, type="centroid", quiet=True
    )
    return _numbered_pieces(vector, copy, numbering, output)


def _numbered_pieces(vector: LabelVector, copy: str, numbering: str, output: str) -> AreaRaster:
    numbered = temporary_name("numbered")
    remove_at_end("vector", numbered)
    gs.run_command(
        "v.category",
        input=copy,
        output=numbered,
        option="add",
        layer=numbering,
        type="centroid",
        cat=1,
        step=1,
        quiet=True,
    )
    listing = gs.read_command(
        "v.category", input=numbered, option="print", layer=[vector.layer, numbering], type="centroid", quiet=True
    )
    members: dict[int, tuple[int, ...]] = {}
    for line in listing.splitlines():
        features, _, number = line.partition("|")
        members[int(number)] = _categories(features)
    _to_raster(numbered, numbering, output)
    return AreaRaster(output, tuple(members.get(number, ()) for number in range(1, max(members) + 1)), 1)


def _centroid_categories(name: str, layer: str) -> list[tuple[int, ...]]:
    listing = gs.read_command("v.category", input=name, option="print", layer=layer, type="centroid", quiet=True)
    return [_categories(line) for line in listing.splitlines()]


def _categories(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("/") if part.strip())


def _to_raster(name: str, layer: str, output: str) -> None:
    # Chatter of a helper module is no message of ours.
    gs.run_command(
        "v.to.rast", input=name, layer=layer, type="area", use="cat", output=output, quiet=True, env=_silent()
    )


def _silent() -> dict[str, str]:
    return {**os.environ, "GRASS_VERBOSE": "-1"}


class Points(NamedTuple):
    """Points of a vector, with an entry for each feature that a point belongs to.

    Attributes:
        east, north: coordinates, (n,).
        feature: category of the feature, (n,).
        point: number of the point, (n,), ascending.
    """

    east: NDArray[np.float64]
    north: NDArray[np.float64]
    feature: NDArray[np.int64]
    point: NDArray[np.int64]

    def take(self, chosen: NDArray) -> Points:
        """Some entries, by their positions or a mask."""
        return Points(*(values[chosen] for values in self))

    def each_once(self) -> Points:
        """The first entry of each point."""
        return self.take(np.unique(self.point, return_index=True)[1])


def read_points(vector: LabelVector, region: Region) -> Points:
    """All points of a layer that belong to a feature.

    In latitude-longitude points are brought into the turn of 360 degrees that begins at the region's western edge, as
    tools of GRASS do.
    """
    listing = gs.read_command(
        "v.out.ascii",
        input=vector.name,
        layer=vector.layer,
        type="point",
        format="standard",
        precision=17,
        quiet=True,
    )
    rows = list(_points_of(listing, str(int(vector.layer))))
    east, north = (np.array([row[axis] for row in rows], dtype=np.float64) for axis in (0, 1))
    feature, point = (np.array([row[number] for row in rows], dtype=np.int64) for number in (2, 3))
    return Points(turned_into(east, region), north, feature, point)


def _points_of(listing: str, layer: str) -> Iterator[tuple[float, float, int, int]]:
    """East, north, feature and number: below a point stand its coordinates, then a line of layer and category each."""
    lines = (line.split() for line in listing.splitlines())
    for point, line in enumerate(line for line in lines if line[:2] == ["P", "1"]):
        east, north = next(lines)[:2]
        for number, feature in itertools.islice(lines, int(line[2]) if len(line) > 2 else 0):
            if number == layer:
                yield float(east), float(north), int(feature), point


def selected(vector: LabelVector, feature: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for features that the condition selected and whose label is not null."""
    labelled = [number for number, value in vector.values.items() if value is not None and value != ""]
    return np.isin(feature, np.array(labelled, dtype=np.int64))
