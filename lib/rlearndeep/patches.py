"""The patch directory: what passes from sampling to learning.

A directory of memory-mappable arrays and one manifest::

    dataset.json          written last: a directory without it is not a dataset
    index.npy             a row per patch, dtype INDEX_DTYPE
    <source>.npy          (patches, bands, rows, cols) in the rasters' own type
    <source>_valid.npy    (patches, rows, cols) bool, False where a band is null
                          of a time series (patches, dates, bands, rows, cols) and (patches, dates, rows, cols)
    labels.npy            label per cell (patches, rows, cols) or per patch (patches,)

A label is, as the manifest's task says: ``class`` - a class index, stored unsigned; ``presence`` - per patch and
class 1 or 0, (patches, classes), stored unsigned; ``value`` - a number, float32. The largest value of an unsigned
type, and NaN, mean unlabelled.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rlearndeep.arrayfile import load_array
from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text
from rlearndeep.scene.bands import Band, BandStatistics
from rlearndeep.scene.classes import UNLABELLED, ClassTable
from rlearndeep.scene.geometry import Region
from rlearndeep.scene.plain import listed, mapping, number, whole
from rlearndeep.scene.tasks import TASKS, Quantity

Side = TypeVar("Side", int, float)

FORMAT = "rlearndeep-patches"
VERSION = 1
MANIFEST = "dataset.json"
PARTS = ("training", "validation", "test")
UNITS = ("cell", "patch")

# Patches are moved in so many steps, so that few are in memory at once.
_PIECES = 64

_ZEROS_AT_ONCE = 1 << 20

INDEX_DTYPE = np.dtype(
    [
        ("id", "<i8"),  # number of the place, counted from 1: the category of the footprint
        ("east", "<f8"),  # centre of the patch
        ("north", "<f8"),
        ("row", "<i8"),  # first cell, counted in the region of the manifest
        ("col", "<i8"),
        ("class", "<i4"),  # class index of the patch (the commonest, for a label per cell) or UNLABELLED
        ("part", "<i4"),  # position in PARTS
        ("block", "<i8"),
        ("acquisition", "<i4"),
        ("area", "<i8"),  # category of the area or point that gave the label, 0 where several did
        ("labelled", "<i8"),  # number of labelled cells
    ]
)


@dataclass(frozen=True)
class Source:
    """One source of the patches.

    Attributes:
        name: ``reference``; of the others ``auxiliary1``, ``auxiliary2``, ..., and ``series``.
        bands: in the order of the array's second axis.
        shape: rows and columns of a patch in cells of this source.
        resolution: height and width of a cell in map units.
        dtype: NumPy name of the stored type.
        statistics: per band, over the valid cells of the training part.
        dates: of a time series, ISO 8601; empty for all other sources.
        region: the grid of a source that is not the reference's; its windows are those of
            ``Region.window_starts`` around the centres of the patches.
    """

    name: str
    bands: tuple[Band, ...]
    shape: tuple[int, int]
    resolution: tuple[float, float]
    dtype: str
    statistics: tuple[BandStatistics, ...] = ()
    dates: tuple[str, ...] = ()
    region: Region | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """The axis of dates: its length, or nothing for a source without dates."""
        return (len(self.dates),) if self.dates else ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (dates,) bands, rows, cols."""
        return (*self.layers, len(self.bands), *self.shape)

    @property
    def valid_shape(self) -> tuple[int, ...]:
        """Shape of one patch's validity: (dates,) rows, cols."""
        return (*self.layers, *self.shape)

    def to_json(self) -> dict:
        """Plain values for the manifest."""
        return {
            "name": self.name,
            "bands": [band.to_json() for band in self.bands],
            "shape": list(self.shape),
            "resolution": list(self.resolution),
            "dtype": self.dtype,
            "statistics": [band.to_json() for band in self.statistics],
            "dates": list(self.dates),
            "region": self.region.to_json() if self.region else None,
        }

    @classmethod
    def from_json(cls, values: dict) -> Source:
        """Inverse of :meth:`to_json`."""
        return cls(
            str(values["name"]),
            tuple(Band.from_json(band) for band in values["bands"]),
            _pair([whole(side) for side in listed(values["shape"])]),
            _pair([number(side) for side in listed(values["resolution"])]),
            str(values["dtype"]),
            tuple(BandStatistics.from_json(band) for band in values["statistics"]),
            tuple(str(date) for date in values.get("dates", ())),
            Region.from_json(values["region"]) if values.get("region") else None,
        )


@dataclass(frozen=True)
class Manifest:
    """What ``dataset.json`` says.

    Attributes:
        unit: ``cell`` (a label per cell) or ``patch`` (a label per patch).
        rule: the label rule of v.sample.patches that made the labels.
        sources: the reference first.
        classes: the classes in the order of their indices; none for the task ``value``.
        region: the computational region the index's rows and columns count in.
        projection: ``{"name": ..., "epsg": ..., "wkt": ...}``; values may be None.
        extent: west, south, east, north in degrees of longitude and latitude, or None.
        report: counts, split, duplicates, overlaps and dropped patches, as v.sample.patches prints them.
        command: the GRASS command that made the directory.
        created: time of writing, ISO 8601 in UTC.
        task: what a label says, one of ``TASKS``.
        quantity: what the values are; None for other tasks.
    """

    unit: str
    rule: str
    sources: tuple[Source, ...]
    classes: ClassTable
    region: Region
    projection: dict[str, Any] = field(default_factory=dict)
    extent: tuple[float, float, float, float] | None = None
    report: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    created: str = ""
    task: str = "class"
    quantity: Quantity | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS or (self.task == "value") != (self.quantity is not None):
            raise ValueError(f"task '{self.task}' does not fit its quantity {self.quantity}")
        if self.task == "presence" and self.unit != "patch":
            raise ValueError("presence is a label of a patch")

    @property
    def reference(self) -> Source:
        """The source whose cells carry the labels."""
        return self.sources[0]

    @property
    def label_dtype(self) -> np.dtype:
        """float32 for values, else the smallest unsigned type for every class index and the unlabelled value."""
        if self.task == "value":
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if len(self.classes) < np.iinfo(np.uint8).max else np.uint16)

    @property
    def unlabelled(self) -> float:
        """Value in ``labels.npy`` of what has no label; NaN for values."""
        return float("nan") if self.task == "value" else int(np.iinfo(self.label_dtype).max)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of one patch's label: its cells, nothing for one label per patch, the classes for presence."""
        if self.task == "presence":
            return (len(self.classes),)
        return self.reference.shape if self.unit == "cell" else ()

    def to_json(self) -> dict:
        """Plain values of the manifest."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "rule": self.rule,
            "sources": [source.to_json() for source in self.sources],
            "classes": self.classes.to_json(),
            "task": self.task,
            "quantity": self.quantity.to_json() if self.quantity else None,
            "unlabelled": None if self.task == "value" else self.unlabelled,
            "region": self.region.to_json(),
            "projection": self.projection,
            "extent": list(self.extent) if self.extent else None,
            "report": self.report,
            "command": self.command,
            "created": self.created,
        }

    @classmethod
    def from_json(cls, values: dict) -> Manifest:
        """Inverse of :meth:`to_json`."""
        return cls(
            unit=str(values["unit"]),
            rule=str(values["rule"]),
            sources=tuple(Source.from_json(source) for source in values["sources"]),
            classes=ClassTable.from_json(values["classes"]),
            region=Region.from_json(values["region"]),
            projection=mapping(values["projection"]),
            extent=_box([number(side) for side in listed(values["extent"])]) if values["extent"] else None,
            report=mapping(values["report"]),
            command=str(values["command"]),
            created=str(values["created"]),
            task=str(values["task"]),
            quantity=Quantity.from_json(values["quantity"]) if values["quantity"] else None,
        )


@dataclass(frozen=True)
class PatchDataset:
    """A patch directory opened for reading; arrays are memory maps."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike) -> PatchDataset:
        """Open a patch directory.

        Raises:
            DeepLearningError: no directory, no manifest, another version, or damaged arrays.
        """
        directory = Path(path)
        file = directory / MANIFEST
        if not file.is_file():
            raise DeepLearningError(
                f"A patch directory holds a {MANIFEST}; '{directory}' has none. Make one with v.sample.patches."
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["version"] != VERSION:
                raise DeepLearningError(
                    f"This version reads {FORMAT} {VERSION}; '{directory}' holds {values['format']} "
                    f"{values['version']}. Sample the patches again with v.sample.patches."
                )
            dataset = cls(directory, Manifest.from_json(values))
            dataset._check()
        except DeepLearningError:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise DeepLearningError(
                f"A patch directory must be whole; '{directory}' is damaged ({type(error).__name__}: {error}). "
                "Sample the patches again with v.sample.patches."
            ) from error
        return dataset

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def index(self) -> NDArray:
        """A row per patch, dtype ``INDEX_DTYPE``."""
        return load_array(self.path / "index.npy", "r")

    @cached_property
    def labels(self) -> NDArray:
        """Labels as stored, (patches, *manifest.label_shape); ``manifest.unlabelled`` where there is none."""
        return load_array(self.path / "labels.npy", "r")

    def images(self, source: str = "reference") -> NDArray:
        """Raw values of a source, (patches, bands, rows, cols), of a series (patches, dates, bands, rows, cols)."""
        return load_array(self.path / f"{source}.npy", "r")

    def valid(self, source: str = "reference") -> NDArray[np.bool_]:
        """False where a band of the source is null, (patches, rows, cols), of a series (patches, dates, rows, cols)."""
        return load_array(self.path / f"{source}_valid.npy", "r")

    def positions(self, part: str) -> NDArray[np.int64]:
        """Positions of the patches of a part, ascending."""
        return np.flatnonzero(self.index["part"] == PARTS.index(part))

    def read_labels(self, positions: NDArray[np.int64]) -> NDArray:
        """Labels of patches: int64 with ``UNLABELLED``, or float32 with NaN for values, where there is none."""
        if self.manifest.task == "value":
            return self.labels[positions]
        labels = self.labels[positions].astype(np.int64)
        return np.where(labels == self.manifest.unlabelled, UNLABELLED, labels)

    def _check(self) -> None:
        count = len(self.index)
        if self.index.dtype != INDEX_DTYPE:
            raise ValueError("index.npy has other columns")
        for source in self.manifest.sources:
            expected = (count, *source.image_shape)
            if self.images(source.name).shape != expected:
                raise ValueError(f"{source.name}.npy has shape {self.images(source.name).shape}, expected {expected}")
            if self.valid(source.name).shape != (count, *source.valid_shape):
                raise ValueError(f"{source.name}_valid.npy does not fit {source.name}.npy")
            _check_type(f"{source.name}.npy", self.images(source.name), np.dtype(source.dtype))
            _check_type(f"{source.name}_valid.npy", self.valid(source.name), np.dtype(bool))
            if len(source.statistics) not in (0, len(source.bands)):
                raise ValueError(f"{source.name} has {len(source.bands)} bands, and statistics of others")
        if self.labels.shape != (count, *self.manifest.label_shape):
            raise ValueError(f"labels.npy has shape {self.labels.shape}")
        _check_type("labels.npy", self.labels, self.manifest.label_dtype)


def _check_type(name: str, array: NDArray, expected: np.dtype) -> None:
    if array.dtype != expected or expected.kind not in "biuf":
        raise ValueError(f"{name} holds {array.dtype}, expected {expected}")


def _pair(sides: list[Side]) -> tuple[Side, Side]:
    first, second = sides
    return first, second


def _box(sides: list[float]) -> tuple[float, float, float, float]:
    west, south, east, north = sides
    return west, south, east, north


def check_new_directory(path: str | os.PathLike, overwrite: bool) -> Path:
    """Absolute path of a patch directory that may be written; of a link to one, the directory itself.

    Raises:
        DeepLearningError: it exists and may not be replaced, or is no patch directory.
    """
    directory = Path(path).absolute()
    if directory.is_symlink():
        directory = directory.resolve()
    if directory.exists() and not overwrite:
        raise DeepLearningError(
            f"A patch directory is not replaced unasked; '{directory}' exists. Choose another name or add --overwrite."
        )
    strange = _strange_entry(directory) if directory.exists() else ""
    if strange:
        raise DeepLearningError(
            f"Only a patch directory may be overwritten; '{directory}' holds other files ({strange}). Choose another "
            "name, or move them."
        )
    return directory


def _strange_entry(directory: Path) -> str:
    """Name of something in a directory that is no part of a patch directory; empty where all is."""
    if not directory.is_dir():
        return directory.name
    entries = sorted(directory.iterdir())
    if entries and directory / MANIFEST not in entries:
        return entries[0].name
    # Systems leave hidden files wherever somebody looks.
    own = (
        entry.is_file() and (entry.name == MANIFEST or entry.name.endswith(".npy") or entry.name.startswith("."))
        for entry in entries
    )
    return next((entry.name for entry, known in zip(entries, own, strict=True) if not known), "")


class PatchWriter:
    """Writes a patch directory; nothing is readable under its name before :meth:`commit`.

    Arrays are preallocated memory maps in a hidden sibling directory, filled in any order. Leaving
    the ``with`` block without a commit removes them.
    """

    def __init__(self, path: str | os.PathLike, manifest: Manifest, count: int, overwrite: bool = False) -> None:
        self.path = check_new_directory(path, overwrite)
        self.manifest = manifest
        self._overwrite = overwrite
        self._hidden = hidden_name(self.path)
        self._files: dict[str, FileIO] = {}
        self._offsets: dict[str, int] = {}
        self._flusher = ThreadPoolExecutor(1)
        self._flushing: list[Future] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.path)
            self._hidden.mkdir()
            self._check_space(count)
            self.index = self._create("index", (count,), INDEX_DTYPE)
            self.labels = self._create("labels", (count, *manifest.label_shape), manifest.label_dtype)
            self.images = {}
            self.valid = {}
            for source in manifest.sources:
                self.images[source.name] = self._create(source.name, (count, *source.image_shape), source.dtype)
                self.valid[source.name] = self._create(f"{source.name}_valid", (count, *source.valid_shape), bool)
        except OSError as error:
            self._remove()
            raise DeepLearningError(
                f"The patch directory must be writable; '{self.path}' is not ({error.strerror or error}). "
                "Choose another place."
            ) from error
        except BaseException:
            self._remove()
            raise

    def __enter__(self) -> PatchWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest and give the directory its name, replacing an older one in a single step."""
        self.finish(manifest)
        self.publish()

    def put(self, name: str, first: int, values: NDArray) -> None:
        """Write rows of an array from ``first`` on; quicker than through the memory map, which shows them at once.

        Several threads may write different rows.

        Args:
            name: ``labels``, a source's name, or that with ``_valid``.
            values: (rows, ...), in the type of the array.

        Raises:
            DeepLearningError: the disk does not take them.
        """
        if name not in self._files:  # an array without cells
            return
        data, place = np.ascontiguousarray(values).data.cast("B"), self._offsets[name]
        place += first * (values.nbytes // len(values))
        try:
            while data:
                written = os.pwrite(self._files[name].fileno(), data, place)
                data, place = data[written:], place + written
        except OSError as error:
            raise DeepLearningError(
                f"Patches must fit on the disk; '{self.path.parent}' does not take them ({error.strerror or error}). "
                "Choose another place."
            ) from error

    def finish(self, manifest: Manifest) -> None:
        """The slow half of :meth:`commit`: everything on the disk, the manifest last, still hidden."""
        for pending in self._flushing:
            pending.result()
        for array in (self.index, self.labels, *self.images.values(), *self.valid.values()):
            if isinstance(array, np.memmap):
                array.flush()
        write_text(self._hidden / MANIFEST, json.dumps(manifest.to_json(), indent=1, ensure_ascii=False))

    def release(self) -> None:
        """Give back the memory of what was written and start its way to the disk; it can be read again."""
        for array in (self.index, self.labels, *self.images.values(), *self.valid.values()):
            if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
                array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        if all(pending.done() for pending in self._flushing):
            self._flushing = [self._flusher.submit(os.fsync, file.fileno()) for file in self._files.values()]

    def publish(self) -> None:
        """The quick half of :meth:`commit`: the directory takes its name.

        Raises:
            DeepLearningError: somebody made a directory of that name meanwhile, which may not be replaced.
        """
        check_new_directory(self.path, self._overwrite)
        replace_directory(self._hidden, self.path)

    def remove(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Take patches out again; the last ones move into the gaps, and the files shrink.

        Returns:
            For each remaining row, the position it had before.
        """
        count = len(self.index) - len(positions)
        order = np.arange(len(self.index))
        gone = np.isin(order, positions)
        gaps, movers = np.flatnonzero(gone[:count]), count + np.flatnonzero(~gone[count:])
        order[gaps] = movers
        self.index, self.labels = (self._shrunk(array, gaps, movers, count) for array in (self.index, self.labels))
        for arrays in (self.images, self.valid):
            for name in arrays:
                arrays[name] = self._shrunk(arrays[name], gaps, movers, count)
        return order[:count]

    def _shrunk(self, array: NDArray, gaps: NDArray, movers: NDArray, count: int) -> NDArray:
        for gap, mover in zip(np.array_split(gaps, _PIECES), np.array_split(movers, _PIECES), strict=True):
            array[gap] = array[mover]
        if not isinstance(array, np.memmap):
            return array[:count]
        file, shape, dtype = Path(str(array.filename)), (count, *array.shape[1:]), array.dtype
        offset = array.offset
        array.flush()
        del array
        _rewrite_header(file, shape, dtype, offset)
        os.truncate(file, offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        return np.lib.format.open_memmap(file, mode="r+")

    def _create(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
        file = self._hidden / f"{name}.npy"
        if 0 in shape:
            np.save(file, np.empty(shape, dtype=dtype))
            return np.empty(shape, dtype=dtype)
        array = np.lib.format.open_memmap(file, mode="w+", dtype=np.dtype(dtype), shape=shape)
        _take_space(file, array.offset, array.nbytes)
        self._files[name] = open(file, "r+b", buffering=0)  # noqa: SIM115
        self._offsets[name] = array.offset
        return array

    def _check_space(self, count: int) -> None:
        manifest = self.manifest
        cells = int(np.prod(manifest.label_shape, dtype=np.int64))
        needed = count * (INDEX_DTYPE.itemsize + manifest.label_dtype.itemsize * cells)
        for source in manifest.sources:
            per_cell = len(source.bands) * np.dtype(source.dtype).itemsize + 1
            needed += count * int(np.prod(source.valid_shape)) * per_cell
        free = shutil.disk_usage(self._hidden).free
        if needed > free:
            raise DeepLearningError(
                f"The patches need {needed / 1e6:.0f} MB; the disk of '{self.path.parent}' has "
                f"{free / 1e6:.0f} MB free. "
                "Choose another place, a smaller size= or a smaller number=."
            )

    def _remove(self) -> None:
        self._flusher.shutdown(cancel_futures=True)
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._hidden, ignore_errors=True)


def hidden_name(path: Path, kind: str = "part") -> Path:
    """Hidden sibling under which this process writes a directory, or keeps the one it replaces (kind ``old``)."""
    return path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.{kind}")


def remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that live no more left half-written beside ``path``.

    What such a process was about to replace is removed only where a directory stands under the name.
    """
    pattern = re.compile(re.escape(f".{path.name}.{platform.node()}.") + r"(\d+)\.(part|old)")
    for sibling in path.parent.iterdir():
        found = pattern.fullmatch(sibling.name)
        if found and not _lives(int(found[1])) and (found[2] == "part" or path.exists()):
            shutil.rmtree(sibling, ignore_errors=True)


def _lives(process: int) -> bool:
    """True for another process that runs; what has our own number was left by one that had it before us."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def replace_directory(new: Path, path: Path) -> None:
    """Give directory ``new`` the name ``path``; what stood there goes only after the new one stands."""
    old = hidden_name(path, "old")
    if path.exists():
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def batches(positions: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """Cut positions into batches of nearly equal size, none larger than ``size``.

    No batch of one is left over behind full ones, which batch normalisation could not train on.
    """
    if len(positions):
        yield from np.array_split(positions, -(-len(positions) // size))


def check_distinct(datasets: Sequence[PatchDataset]) -> None:
    """Refuse a patch directory that is given twice: its patches would count twice.

    Raises:
        DeepLearningError: there is one, under whatever name.
    """
    places = [dataset.path.resolve() for dataset in datasets]
    for position, (place, dataset) in enumerate(zip(places, datasets, strict=True)):
        if place in places[:position]:
            raise DeepLearningError(
                f"A patch directory counts once; '{dataset.path}' is given twice. Leave one of them out."
            )


def common_classes(datasets: Sequence[PatchDataset]) -> ClassTable:
    """The class table of several patch directories, which must have the same classes: categories and labels.

    Texts of a column are numbered in sorted order at each site, so the category alone does not tell a class.

    Raises:
        DeepLearningError: the class tables differ.
    """
    first = datasets[0]
    for other in datasets[1:]:
        mine, theirs = first.manifest.classes.names, other.manifest.classes.names
        if mine != theirs:
            raise DeepLearningError(
                f"Patch directories must have the same classes, by category and label; '{first.path}' has {mine}, "
                f"'{other.path}' has {theirs}. Sample all with a column of numbers that mean the same everywhere, and "
                "with the same labels."
            )
    return first.manifest.classes


def _take_space(file: Path, offset: int, size: int) -> None:
    """Claim the disk space of an array: a disk that fills up under a memory map would kill the process."""
    with open(file, "r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, offset + size)
            return
        # macOS has no such call; zeros do the same, at the price of a second writing.
        stream.seek(offset)
        for start in range(0, size, _ZEROS_AT_ONCE):
            stream.write(bytes(min(_ZEROS_AT_ONCE, size - start)))


def _rewrite_header(file: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> None:
    """Put a smaller shape into the header of an array file, which keeps its length."""
    values = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with open(file, "r+b") as stream:
        version = np.lib.format.read_magic(stream)
        start = stream.tell() + (2 if version == (1, 0) else 4)
        stream.seek(start)
        stream.write((repr(values).ljust(offset - start - 1) + "\n").encode("latin1"))
