"""New maps that are complete in a hidden directory before the first of them takes its place.

The directory is built like a mapset, so GRASS writes all that belongs to a map into it. Putting the maps in place is
then nothing but renaming: what fails in the middle is taken back, and what a kill leaves in the middle is finished by
the next process that stages maps in that mapset.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rlearndeep.errors import DeepLearningError
from rlearndeep.files import write_text

KEEPER = ".rlearndeep"
"""Hidden directory of a mapset."""

_HEADER = "cellhd"  # GRASS knows a raster as long as this is there
_REST = ("cell", "fcell", "cats", "colr", "hist", "cell_misc")
_EXTERNAL = "GDAL"  # where r.external.out keeps its settings
_PLAN = "plan.json"
_LOCK = "lock"
_REPLACED = "replaced"


class Stage:
    """A hidden directory for new rasters of a mapset; one process has it.

    Args:
        mapset: directory of the mapset.

    Attributes:
        directory: built like a mapset.

    Raises:
        DeepLearningError: nothing can be written there.
    """

    def __init__(self, mapset: Path) -> None:
        self._mapset = mapset
        with _moving(mapset), _turn(mapset):
            _clear(mapset)
            self.directory = Path(tempfile.mkdtemp(prefix="new_", dir=mapset / KEEPER))
            self._lock = open(self.directory / _LOCK, "ab")  # noqa: SIM115 - held as long as the stage
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            _write_external(mapset, self.directory)

    def check(self, name: str) -> None:
        """See that an older raster of a name stays as it is while the new one is written.

        Raises:
            DeepLearningError: its cells are in a file of GDAL, which would be overwritten at once.
        """
        if _exists(self.directory / _EXTERNAL) and _exists(self._mapset / "cell_misc" / name / "gdal"):
            raise DeepLearningError(
                f"A raster is replaced when the new one is complete; the cells of <{name}> are in a file that GDAL "
                "would overwrite at once (r.external.out). Remove the raster with g.remove, or choose another name."
            )

    def put_in_place(self, names: Sequence[str], overwrite: bool) -> None:
        """Let rasters that are complete in the directory take their places, and older ones of these names go.

        Raises:
            DeepLearningError: there is a raster of such a name, which is not replaced unless ``overwrite``, or one
                cannot be moved; all is then as it was before.
        """
        with _moving(self._mapset), _turn(self._mapset):
            for name in names:
                if not overwrite and _exists(self._mapset / _HEADER / name):
                    raise DeepLearningError(
                        f"Raster map <{name}> is not replaced unasked; it was made while this map was computed. "
                        "Rename it, or add --overwrite, and run the command again, a prediction with -r."
                    )
            for name in names:
                self._keep_dependants(name)
            write_text(self.directory / _PLAN, json.dumps(_plan(self._mapset, self.directory, names)))
            _Moves(self._mapset, self.directory).carry_out(names)
            (self.directory / _PLAN).unlink()

    def close(self) -> None:
        """Forget what has not taken its place."""
        if not _exists(self.directory / _PLAN):  # else maps that were there before may be here
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    def _keep_dependants(self, name: str) -> None:
        """Reclasses of a raster outlive its cells."""
        known = Path("cell_misc", name, "reclassed_to")
        if _exists(self._mapset / known):
            (self.directory / known).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._mapset / known, self.directory / known)


class _Moves:
    """The renaming of the files of rasters, and the way back."""

    def __init__(self, mapset: Path, directory: Path) -> None:
        self._mapset = mapset
        self._directory = directory
        self._done: list[tuple[Path, Path]] = []

    def carry_out(self, names: Sequence[str]) -> None:
        """Replace the rasters; leave all as it was when one of them cannot be replaced."""
        try:
            for name in names:
                self.replace(name, [element for element in (*_REST, _HEADER) if self._new(element, name)])
        except BaseException:
            for source, target in reversed(self._done):
                target.rename(source)
            (self._directory / _PLAN).unlink()
            raise

    def replace(self, name: str, elements: Sequence[str]) -> None:
        """Replace a raster by a new one of these elements, of which some may be in place already."""
        for element in (_HEADER, *_REST):
            place = self._mapset / element / name
            if _exists(place) and (self._new(element, name) or element not in elements):
                self._move(place, self._directory / _REPLACED / element / name)
        for element in (*_REST, _HEADER):
            if self._new(element, name):
                self._move(self._directory / element / name, self._mapset / element / name)

    def _new(self, element: str, name: str) -> bool:
        return _exists(self._directory / element / name)

    def _move(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        self._done.append((source, target))


def _plan(mapset: Path, directory: Path, names: Sequence[str]) -> dict[str, list]:
    """Of each raster the elements of the new one, and the header of the one it replaces."""
    return {
        name: [
            [element for element in (*_REST, _HEADER) if _exists(directory / element / name)],
            _state(mapset / _HEADER / name),
        ]
        for name in names
    }


def _clear(mapset: Path) -> None:
    """Finish what killed processes were putting in place, and forget what they were not."""
    for directory in (mapset / KEEPER).glob("new_*"):
        # The owner of a directory may be removing it.
        with suppress(FileNotFoundError), open(directory / _LOCK, "ab") as lock:
            if not _is_free(lock):
                continue
            if _exists(directory / _PLAN):
                _finish(mapset, directory)
            shutil.rmtree(directory, ignore_errors=True)


def _finish(mapset: Path, directory: Path) -> None:
    for name, (elements, replaced) in json.loads((directory / _PLAN).read_text(encoding="utf-8")).items():
        waits = _exists(directory / _HEADER / name)
        # A header that is neither absent nor the replaced one is that of a raster somebody made since.
        if waits and _state(mapset / _HEADER / name) in (None, replaced):
            _Moves(mapset, directory).replace(name, elements)


def _state(file: Path) -> list[int] | None:
    """Size and time of change of a file that exists."""
    if not _exists(file):
        return None
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_free(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _turn(mapset: Path) -> Iterator[None]:
    """One process at a time moves maps of a mapset."""
    (mapset / KEEPER).mkdir(exist_ok=True)
    with open(mapset / KEEPER / _LOCK, "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _moving(mapset: Path) -> Iterator[None]:
    """Make one message of what the disk may say."""
    try:
        yield
    except OSError as error:
        raise DeepLearningError(
            f"New maps must be moved into '{mapset}'; that failed ({error.strerror or error}), and all maps are as "
            "they were before. Check disk space and permissions, then run the command again, a prediction with -r."
        ) from error


def _write_external(mapset: Path, directory: Path) -> None:
    """Let a mapset that writes its rasters through GDAL (r.external.out) do so from here."""
    settings = mapset / _EXTERNAL
    if not settings.is_file():
        return
    lines = [line for line in settings.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = dict(line.split(":", maxsplit=1) for line in lines)
    place = mapset / known.get("directory", "gdal").strip()
    place.mkdir(parents=True, exist_ok=True)
    known["directory"] = f" {place}"
    (directory / _EXTERNAL).write_text("".join(f"{key}:{value}\n" for key, value in known.items()), encoding="utf-8")
