"""What tells whether the maps that were read are still the same when a prediction goes on."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

from rlearndeep.gis.rasters import possible_masks
from rlearndeep.gis.session import mapset_directory


def raster_stamp(full_name: str) -> list:
    """What changes when the values of a raster, ``name@mapset``, may have changed.

    It holds name, sizes and times of change of the raster's files, of the files on this machine that it is linked to
    (*r.external*), and the same of the rasters it is made of when it is read: the base of a reclass, and the tiles of a
    virtual raster. JSON values.
    """
    return _stamp(full_name, mapset_directory().parent, set())


def mask_stamp() -> list:
    """Stamps of what may be the mask."""
    return [raster_stamp(name) for name in possible_masks()]


def _stamp(full_name: str, project: Path, seen: set[str]) -> list:
    seen.add(full_name)
    name, where = full_name.split("@")
    directory = project / where
    misc = directory / "cell_misc" / name
    files = [directory / element / name for element in ("cellhd", "cell", "fcell")]
    files += [misc / part for part in ("null", "nullcmpr", "f_format", "f_quant", "gdal", "vrt")]
    files += _linked_files(_text(misc / "gdal"))
    stamp: list = [full_name]
    for file in files:
        if file.exists():
            state = file.stat()
            stamp.append([os.path.relpath(file, directory), state.st_size, state.st_mtime_ns])
    for base in (*_reclassed(_text(directory / "cellhd" / name)), *_text(misc / "vrt").split()):
        full = base if "@" in base else f"{base}@{where}"
        if full not in seen:
            stamp.append(_stamp(full, project, seen))
    return stamp


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _reclassed(header: str) -> list[str]:
    """The raster that a header says it is a reclass of, if any."""
    found = re.match(r"reclass\s+name:\s*(\S+)\s+mapset:\s*(\S+)", header)
    return ["@".join(found.groups())] if found else []


def _linked_files(link: str) -> list[Path]:
    """Files that a GDAL data source, such as a file, an archive or a data set in one, is read from."""
    found = re.search(r"^file:\s*(.+)$", link, re.MULTILINE)
    if found is None:
        return []
    whole = Path(found.group(1))
    files = sorted(whole.rglob("*")) if whole.is_absolute() else []
    for part in dict.fromkeys((found.group(1), *re.split(r"[:\"]", found.group(1)))):
        path = Path(re.sub(r"^(/vsi\w+(?=/))+", "", part))
        files += [one for one in (path, *path.parents) if path.is_absolute() and one.is_file()]
    return files + [one for file in files if file.suffix.lower() == ".vrt" for one in _virtual_files(file)]


def _virtual_files(file: Path) -> list[Path]:
    """Files that a virtual data set of GDAL puts together."""
    names = re.findall(r"<SourceFilename[^>]*>([^<]+)</SourceFilename>", _text(file))
    return [file.parent / html.unescape(name) for name in names]
