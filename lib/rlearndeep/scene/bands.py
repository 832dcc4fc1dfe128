"""Bands of a source, their statistics, and the one normalisation that training and prediction share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.plain import listed, mapping, number, text, whole

STANDARDIZE = ("band", "cell", "none")

SMALLEST_SPREAD = float(np.finfo(np.float32).eps)
"""A band (or a cell) that varies less, as a share of its mean, is rounding: it is centred but not stretched."""

# The inverse of a smaller deviation is no float32.
_SMALLEST_DEVIATION = float(np.finfo(np.float32).tiny)

_MOST_SHOWN = 20
_LONGEST_SHOWN = 100


@dataclass(frozen=True)
class Band:
    """One raster of a source: its map name without mapset, and its semantic label if it has one."""

    name: str
    semantic_label: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.semantic_label})" if self.semantic_label else self.name

    def to_json(self) -> dict:
        """Plain values for a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict) -> Band:
        """Inverse of :meth:`to_json`."""
        label = mapping(values).get("semantic_label")
        return cls(text(values["name"]), None if label is None else text(label))


@dataclass(frozen=True)
class BandStatistics:
    """Moments of one band over its valid cells; ``std`` is that of the population."""

    count: int
    mean: float
    std: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: NDArray) -> BandStatistics:
        """Statistics of an array of valid values, any shape."""
        if values.size == 0:
            return cls(0, 0.0, 0.0, float("inf"), float("-inf"))
        return cls(
            int(values.size),
            float(values.mean(dtype=np.float64)),
            float(values.std(dtype=np.float64)),
            float(values.min()),
            float(values.max()),
        )

    def __add__(self, other: BandStatistics) -> BandStatistics:
        """Statistics of both sets of cells together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        squares = self.std**2 * self.count + other.std**2 * other.count + delta**2 * self.count * other.count / count
        return BandStatistics(
            count,
            mean,
            float(np.sqrt(squares / count)),
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def varies(self) -> bool:
        """Whether the values differ by more than rounding, whatever their unit."""
        return self.std > max(SMALLEST_SPREAD * abs(self.mean), _SMALLEST_DEVIATION)

    def to_json(self) -> dict:
        """Plain values for a manifest; an empty set has null limits."""
        values = asdict(self)
        if self.count == 0:
            values["minimum"] = values["maximum"] = None
        return values

    @classmethod
    def from_json(cls, values: dict) -> BandStatistics:
        """Inverse of :meth:`to_json`."""
        count = whole(values["count"])
        if not count:
            return cls.of(np.empty(0))
        return cls(count, *(number(values[key]) for key in ("mean", "std", "minimum", "maximum")))


def pooled(statistics: Sequence[Sequence[BandStatistics]]) -> list[BandStatistics]:
    """Statistics per band of several sets of cells, e.g. the training parts of several sites."""
    return [reduce(BandStatistics.__add__, per_band) for per_band in zip(*statistics, strict=True)]


@dataclass(frozen=True)
class Normalization:
    """How raw values become network input: the same numbers in training and in prediction.

    Attributes:
        method: ``band`` (value - mean) / std per band, ``cell`` the same over the bands of each
            cell, ``none`` unchanged.
        mean: per band; empty unless ``method`` is ``band``.
        std: per band; empty unless ``method`` is ``band``.
    """

    method: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in STANDARDIZE:
            raise DeepLearningError(
                f"Standardization must be one of {', '.join(STANDARDIZE)}; got '{self.method}'. Choose one of them."
            )

    @classmethod
    def from_statistics(cls, method: str, statistics: Sequence[BandStatistics]) -> Normalization:
        """Normalisation with the statistics of the training part."""
        if method != "band":
            return cls(method)
        return cls(
            method,
            tuple(band.mean for band in statistics),
            tuple(band.std if band.varies else 1.0 for band in statistics),
        )

    def apply(self, values: NDArray, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Network input of raw values.

        Args:
            values: (..., bands, rows, cols), any numeric type.
            valid: (..., rows, cols), False where a needed band is null.

        Returns:
            A new float32 array of the shape of ``values``; 0, the mean, where not valid.
        """
        if self.method == "band":
            mean = np.array(self.mean, dtype=np.float32)[:, None, None]
            result = np.subtract(values, mean, dtype=np.float32, casting="same_kind")
            result *= (1.0 / np.array(self.std, dtype=np.float64)).astype(np.float32)[:, None, None]
        else:
            result = values.astype(np.float32)
        if self.method == "cell":
            middle = result.mean(axis=-3, keepdims=True)
            result -= middle
            spread = result.std(axis=-3, keepdims=True)
            result /= np.where(spread > SMALLEST_SPREAD * np.abs(middle), spread, 1.0)
        if not valid.all():
            np.copyto(result, 0.0, where=~valid[..., None, :, :])
        return result

    def to_json(self) -> dict:
        """Plain values for a manifest."""
        return {"method": self.method, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, values: dict) -> Normalization:
        """Inverse of :meth:`to_json`."""
        mean, std = (tuple(number(value) for value in listed(values[key])) for key in ("mean", "std"))
        return cls(text(values["method"]), mean, std)


def match_bands(expected: Sequence[Band], found: Sequence[Band]) -> list[int]:
    """Positions in ``found`` of the ``expected`` bands, by semantic label, then by name.

    Labels are used where every expected band has one of its own that exactly one found band has; names likewise, but
    never for a band whose label says that it is another one. Both are not mixed: that could pick one raster twice.

    Raises:
        DeepLearningError: a band is missing; the message shows both sides.
    """
    by_label = _positions([band.semantic_label for band in expected], [band.semantic_label for band in found])
    if by_label is not None:
        return by_label
    by_name = _positions([band.name for band in expected], [band.name for band in found])
    if by_name is not None and not any(map(_contradict, expected, (found[position] for position in by_name))):
        return by_name
    raise DeepLearningError(
        f"Bands must match those the model was trained with; it needs {listed_bands(expected)}, the group has "
        f"{listed_bands(found)}. Set semantic labels with r.semantic.label or use a group with these maps."
    )


def _positions(wanted: Sequence[str | None], offered: Sequence[str | None]) -> list[int] | None:
    if None in wanted or len(set(wanted)) < len(wanted) or any(offered.count(key) != 1 for key in wanted):
        return None
    return [offered.index(key) for key in wanted]


def _contradict(first: Band, second: Band) -> bool:
    labels = {first.semantic_label, second.semantic_label}
    return None not in labels and len(labels) > 1


def listed_bands(bands: Sequence[Band]) -> str:
    """Number and names of bands, for a message; of many only the first."""
    names = [str(band)[:_LONGEST_SHOWN] for band in bands[:_MOST_SHOWN]]
    return f"{len(bands)} [{', '.join([*names, *(['...'] if len(bands) > _MOST_SHOWN else [])])}]"
