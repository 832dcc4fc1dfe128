"""Accuracy and class areas estimated from a stratified sample of reference units.

Olofsson, Foody, Herold, Stehman, Woodcock and Wulder (2014), Good practices for estimating area and
assessing accuracy of land change, Remote Sensing of Environment 148, 42-57, treat strata that are the
map's own classes; Stehman (2014), International Journal of Remote Sensing 35, 4923-4939, any strata.
His ratio estimator gives their equations where the strata are the map classes, so there is one
estimator here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import ClassTable

HALF_WIDTH = 1.96
"""Half the width of a 95 % confidence interval in standard errors, as Olofsson et al. (2014) round it."""


@dataclass(frozen=True)
class Estimate:
    """Estimates, one or one per class, and their standard errors; NaN where not defined."""

    value: NDArray[np.float64]
    error: NDArray[np.float64]

    def scaled(self, factor: float) -> Estimate:
        """The estimates and errors in another unit."""
        return Estimate(self.value * factor, self.error * factor)

    def half_width(self) -> NDArray[np.float64]:
        """Half the width of the 95 % confidence interval, from the normal distribution."""
        return HALF_WIDTH * self.error

    def to_json(self, largest: float, index: int) -> dict[str, float | None]:
        """``value``, ``standard_error``, ``low`` and ``high``; the interval is cut at 0 and ``largest``."""
        value, half = float(self.value[index]), float(self.half_width()[index])
        return {
            "value": _finite(value),
            "standard_error": _finite(float(self.error[index])),
            "low": _finite(np.maximum(value - half, 0.0)),
            "high": _finite(np.minimum(value + half, largest)),
        }


@dataclass(frozen=True)
class StratifiedSample:
    """A sample of reference units drawn from strata of known area.

    Attributes:
        counts: (H, K, K) units per stratum, reference class and map class.
        areas: (H,) area of each stratum, any unit.
        holds: (H, K) True for the map classes that a stratum can hold; None where it can hold any.
    """

    counts: NDArray[np.int64]
    areas: NDArray[np.float64]
    holds: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.units.sum() == 0 or self.areas[self.units > 0].sum() <= 0:
            raise DeepLearningError(
                "Area-weighted estimates need reference units in at least one stratum with an area; there is none. "
                "Check that strata= and the reference cover the same ground."
            )

    @property
    def units(self) -> NDArray[np.int64]:
        """(H,) sample units per stratum."""
        return self.counts.sum(axis=(1, 2))

    @property
    def sampled_area(self) -> float:
        """Area of the strata that hold a unit: what the estimates speak of."""
        return float(self.areas[self.units > 0].sum())

    @property
    def unsampled_area(self) -> float:
        """Area of the strata without a unit, of which nothing can be said."""
        return float(self.areas[self.units == 0].sum())

    def ratio(self, part: ArrayLike, whole: ArrayLike) -> Estimate:
        """Combined ratio estimator and its standard error (Stehman 2014, equations 27 and 28).

        Without the finite population correction, as in Olofsson et al. (2014): strata are large
        against the sample. The error is NaN when a stratum that contributes holds a single unit.

        Args:
            part: (n, K, K) share that a unit of each reference and map class adds to the numerator.
            whole: the same for the denominator.

        Returns:
            n estimates; NaN where the denominator is 0.
        """
        used = self.units > 0
        units, areas = self.units[used].astype(np.float64), self.areas[used]
        shares = self.counts[used] / units[:, None, None]
        part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            total = np.einsum("h,hrm,nrm->n", areas, shares, whole)
            value = np.einsum("h,hrm,nrm->n", areas, shares, part) / total
            residuals = part - value[:, None, None] * whole
            mean = np.einsum("hrm,nrm->nh", shares, residuals)
            spread = np.maximum(np.einsum("hrm,nrm->nh", shares, residuals**2) - mean**2, 0.0)
            # The spread of a single unit is unknown, unless no unit of its stratum could count.
            counting = (np.abs(residuals).max(axis=1) > 0).astype(int) @ self._held(used).T.astype(int) > 0
            variance = np.where((units < 2) & counting, np.nan, spread / np.maximum(units - 1, 1))
            error = np.sqrt((areas**2 * variance).sum(axis=1)) / total
        return Estimate(value, error)

    def _held(self, used: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Map classes that strata can hold, (strata, K)."""
        return np.ones(self.counts.shape[::2], dtype=bool)[used] if self.holds is None else self.holds[used]

    def overall_accuracy(self) -> Estimate:
        """Share of the area that is mapped as its reference class (equations 1 and 5)."""
        classes = self.counts.shape[1]
        return self.ratio(np.eye(classes)[None], np.ones((1, classes, classes)))

    def users_accuracy(self) -> Estimate:
        """Per class, share of the area mapped as it that is it (equations 2 and 6): precision."""
        return self.ratio(*self._per_class(lambda eye: eye[:, None, :]))

    def producers_accuracy(self) -> Estimate:
        """Per class, share of its area that is mapped as it (equations 3 and 7): recall."""
        return self.ratio(*self._per_class(lambda eye: eye[:, :, None]))

    def area_shares(self) -> Estimate:
        """Per class, share of the sampled area that is it in the reference (equations 9 and 10)."""
        classes = self.counts.shape[1]
        one = np.eye(classes)[:, :, None] * np.ones((1, 1, classes))
        return self.ratio(one, np.ones((1, classes, classes)))

    def proportions(self) -> NDArray[np.float64]:
        """(K, K) error matrix as shares of the area (equation 4), rows = reference."""
        used = self.units > 0
        shares = self.counts[used] / self.units[used, None, None]
        return np.einsum("h,hrm->rm", self.areas[used], shares) / self.sampled_area

    def _per_class(self, select: Callable[[NDArray], NDArray]) -> tuple[NDArray, NDArray]:
        """Numerators (class agreed on) and denominators (class by ``select``) of per-class accuracies."""
        classes = self.counts.shape[1]
        eye = np.eye(classes)
        whole = select(eye) * np.ones((1, classes, classes))
        return eye[:, :, None] * eye[:, None, :], whole


def area_scores(sample: StratifiedSample, mapped: ArrayLike, classes: ClassTable) -> dict[str, Any]:
    """Area-weighted accuracies and class areas with 95 % confidence intervals, for JSON.

    Args:
        sample: the reference units.
        mapped: (K,) area of each class in the map.
        classes: the K classes.

    Returns:
        ``total`` (area the estimates speak of), ``unsampled`` (area of strata without a unit),
        ``overall_accuracy``, ``classes`` (``category``, ``label``, ``units`` in the reference, ``mapped_area``,
        ``area``, ``area_share``, ``users_accuracy``, ``producers_accuracy``) and ``proportions``. An estimate is
        an object of ``value``, ``standard_error``, ``low`` and ``high``; None where not defined.
    """
    total = sample.sampled_area
    shares, areas = sample.area_shares(), sample.area_shares().scaled(total)
    users, producers = sample.users_accuracy(), sample.producers_accuracy()
    support = sample.counts.sum(axis=(0, 2))
    entries = [
        {
            "category": entry.category,
            "label": label,
            "units": int(support[index]),
            "mapped_area": float(np.asarray(mapped)[index]),
            "area": areas.to_json(total, index),
            "area_share": shares.to_json(1.0, index),
            "users_accuracy": users.to_json(1.0, index),
            "producers_accuracy": producers.to_json(1.0, index),
        }
        for index, (entry, label) in enumerate(zip(classes, classes.labels, strict=True))
    ]
    return {
        "total": total,
        "unsampled": sample.unsampled_area,
        "overall_accuracy": sample.overall_accuracy().to_json(1.0, 0),
        "classes": entries,
        "proportions": sample.proportions().tolist(),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
