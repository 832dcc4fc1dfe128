"""Two maps against one reference: which is right where the other is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

EXACT_BELOW = 25
"""Below this number of discordant units the binomial test replaces the approximation."""


@dataclass(frozen=True)
class Discordance:
    """Units that both maps and the reference know, by which map is right.

    Attributes:
        both: right in both maps.
        first: right in the first map only.
        second: right in the second map only.
        neither: wrong in both.
    """

    both: int
    first: int
    second: int
    neither: int

    @property
    def units(self) -> int:
        """All units compared."""
        return self.both + self.first + self.second + self.neither

    def accuracies(self) -> tuple[float | None, float | None]:
        """Overall accuracy of each map over the units both know; None without units."""
        if not self.units:
            return None, None
        return (self.both + self.first) / self.units, (self.both + self.second) / self.units

    def to_json(self) -> dict[str, Any]:
        """The counts, both accuracies, their difference (first - second) and McNemar's test."""
        first, second = self.accuracies()
        difference = None if first is None or second is None else first - second
        return {
            "units": self.units,
            "right": asdict(self),
            "overall_accuracy": [first, second],
            "difference": difference,
            "mcnemar": mcnemar(self.first, self.second),
        }


def mcnemar(first: int, second: int) -> dict[str, Any]:
    """McNemar's test that two maps are equally often right (McNemar 1947; Foody 2004).

    Args:
        first: units right in the first map only.
        second: units right in the second map only.

    Returns:
        ``test`` (``exact`` binomial below 25 such units, else ``chi-square`` with continuity correction),
        ``statistic`` (None for the exact test) and ``p_value`` (two-sided).
    """
    from scipy import stats

    discordant = first + second
    if discordant < EXACT_BELOW:
        p_value = stats.binomtest(first, discordant, 0.5).pvalue if discordant else 1.0
        return {"test": "exact", "statistic": None, "p_value": float(p_value)}
    statistic = max(abs(first - second) - 1, 0) ** 2 / discordant
    return {"test": "chi-square", "statistic": statistic, "p_value": float(stats.chi2.sf(statistic, 1))}
