"""What semantic labels say of the spectrum, across sensors: red is red."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlearndeep.scene.bands import Band

_COMMON = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir08", "nir09", "swir16", "swir22")

# Bands of sensors that have a counterpart elsewhere, by the number in GRASS's semantic labels (i.band.library).
_MSS = {"4": "green", "5": "red", "7": "nir"}
_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir16", "7": "swir22"}
_OLI = {"1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir16", "7": "swir22", "9": "cirrus"}
_MSI = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge",
    "8": "nir",
    "8A": "nir08",
    "9": "nir09",
    "10": "cirrus",
    "11": "swir16",
    "12": "swir22",
}
_MODIS = {"1": "red", "2": "nir", "3": "blue", "4": "green", "6": "swir16", "7": "swir22"}
_SENSORS = {
    **dict.fromkeys(("L1", "L2", "L3"), _MSS),
    **dict.fromkeys(("L4", "L5", "L7", "TM4", "TM5", "TM7"), _TM),
    **dict.fromkeys(("L8", "L9", "OLI"), _OLI),
    **dict.fromkeys(("S2", "S2A", "S2B", "S2C"), _MSI),
    "MODIS": _MODIS,
}


def common_name(semantic_label: str | None) -> str | None:
    """The part of the spectrum that a label names, as STAC calls it, e.g. ``red`` for ``L8_4`` and ``S2_4``.

    None for labels that name none, or none that is known.
    """
    if not semantic_label:
        return None
    text = semantic_label.strip()
    if text.lower() in _COMMON:
        return text.lower()
    sensor, _, number = text.upper().partition("_")
    return _SENSORS.get(sensor, {}).get(number.removeprefix("B").lstrip("0"))


def counterparts(wanted: Sequence[Band], offered: Sequence[Band]) -> list[int | None]:
    """For each wanted band the position of the offered one that shows the same, or None.

    The same semantic label counts first, then the same part of the spectrum, then the same name; an offered band
    is taken once. A name counts only where one of the two bands has no label: names are often numbers.
    """
    result: list[int | None] = [None] * len(wanted)
    free = set(range(len(offered)))
    keys = (
        lambda band: band.semantic_label,
        lambda band: common_name(band.semantic_label) or common_name(band.name),
        lambda band: band.name,
    )
    for rank, key in enumerate(keys):
        for number, band in enumerate(wanted):
            for position in sorted(free) if result[number] is None and key(band) else ():
                both_labelled = bool(band.semantic_label and offered[position].semantic_label)
                if key(offered[position]) == key(band) and not (rank == len(keys) - 1 and both_labelled):
                    result[number] = position
                    free.discard(position)
                    break
    return result


RGB = (Band("red", "red"), Band("green", "green"), Band("blue", "blue"))
"""Bands of networks that were trained on pictures."""


def shared_out(filters: NDArray, taken: Sequence[int | None], axis: int) -> NDArray:
    """Filters of a first layer for other bands, with the same sum: a grey image gives the same activation as before.

    A band with a counterpart takes its filters. The filters of the counterparts that are left are added up and
    shared equally among the bands that have none, or among all where each has one. Where none is left, a band
    without counterpart begins at zero: what the other bands say is kept, and training finds its part.

    Args:
        filters: with bands along ``axis``.
        taken: for each band of the result the position of its counterpart, or None.
        axis: of the bands.
    """
    filters = np.moveaxis(filters, axis, 0)
    result = np.stack([np.zeros_like(filters[0]) if at is None else filters[at] for at in taken])
    alone = [number for number, at in enumerate(taken) if at is None] or list(range(len(taken)))
    left = [at for at in range(len(filters)) if at not in taken]
    if left:
        result[alone] += filters[left].sum(axis=0) / len(alone)
    return np.moveaxis(result, 0, axis)
