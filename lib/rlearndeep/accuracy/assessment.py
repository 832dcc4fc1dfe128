"""From counts to the object that r.learn.deep.evaluate prints: scores per map, level, zone and segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.area import StratifiedSample, area_scores
from rlearndeep.accuracy.comparison import Discordance
from rlearndeep.accuracy.counting import ClassCounts, ValueCounts
from rlearndeep.accuracy.levels import Level
from rlearndeep.accuracy.metrics import RegressionSums, regression_scores, scores, table_scores
from rlearndeep.accuracy.tally import Counter
from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.classes import UNLABELLED

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Assessment:
    """Counts of class maps, and how they are read.

    Attributes:
        names: of the maps.
        counts: of the pass over them.
        levels: the class tables to report, the first of a map is its main one.
        sample: True when the reference is a sample of units and areas are estimated.
        of_table: scores confusion matrices, as ``metrics.table_scores`` does.
    """

    names: tuple[str, ...]
    counts: ClassCounts
    levels: tuple[Level, ...]
    sample: bool = False
    of_table: Callable[[NDArray], dict[str, Any]] = table_scores

    def result(self) -> dict[str, Any]:
        """Everything, for JSON.

        Raises:
            DeepLearningError: maps and reference have no unit in common.
        """
        self._check_overlap()
        levels = [self._present(level) for level in self.levels]
        return {
            "without_reference": self._without_reference(),
            "maps": [self._map(number, levels) for number in range(len(self.names))],
            "comparisons": [
                self._comparison(pair, level)
                for pair in self.counts.tally.joint
                for level in levels
                if all(level.maps[number] is not None for number in pair)
            ],
        }

    def _check_overlap(self) -> None:
        for name, counter in zip(self.names, self.counts.tally.pairs, strict=True):
            keys, _, _ = counter.entries()
            known = (keys[:, 1] < counter.sizes[1] - 1) & (keys[:, 2] < counter.sizes[2] - 1)
            if not known.any():
                raise DeepLearningError(
                    f"Map and reference must share cells inside the region; <{name}> and the reference have none in "
                    "common. Check the region with g.region, a mask, and that both cover the same ground."
                )

    def _present(self, level: Level) -> Level:
        """The level without the classes that occur neither in a compared unit nor, in a sample, in a map."""
        present = np.zeros(len(level.classes), dtype=bool)
        for number in range(len(self.names)):
            if level.maps[number] is not None:
                matrix = self._matrix(number, level)
                present |= (matrix.sum(axis=0) > 0) | (matrix.sum(axis=1) > 0)
                if self.sample and self.counts.areas is not None:
                    present |= self._mapped(number, level) > 0
        return level.restricted(present)

    def _without_reference(self) -> int:
        counter = self.counts.tally.pairs[0]
        keys, counts, _ = counter.entries()
        return int(counts[keys[:, 1] == counter.sizes[1] - 1].sum())

    def _map(self, number: int, levels: Sequence[Level]) -> dict[str, Any]:
        counter = self.counts.tally.pairs[number]
        keys, counts, _ = counter.entries()
        referenced = keys[:, 1] < counter.sizes[1] - 1
        null = int(counts[referenced & (keys[:, 2] == counter.sizes[2] - 1)].sum())
        usable = [level for level in levels if level.maps[number] is not None]
        main = self._at_level(number, usable[0])
        result = {"map": self.names[number], "units": int(counts[referenced].sum()) - null, "null": null, **main}
        if any(level.name for level in levels):
            result["levels"] = [{"level": level.name, **self._at_level(number, level)} for level in usable]
        return result

    def _at_level(self, number: int, level: Level) -> dict[str, Any]:
        result = scores(self._matrix(number, level), level.classes, self.of_table)
        if not self.sample:
            result["confusion_matrix_area"] = self._area_matrix(number, level).tolist()
        else:
            result["area"] = self._areas(number, level)
        if self.counts.tally.layout.zones:
            result["training_footprints"] = self._zones(number, level)
        if self.counts.tally.segments:
            result["segments"] = self._segments(number, level)
        return result

    def _matrix(self, number: int, level: Level, zone: int | None = None) -> NDArray[np.int64]:
        keys, counts, _ = self.counts.tally.pairs[number].entries()
        chosen = slice(None) if zone is None else keys[:, 0] == zone
        return _project(keys[chosen, 1], keys[chosen, 2], counts[chosen], level, number)

    def _area_matrix(self, number: int, level: Level) -> NDArray[np.float64]:
        keys, counts, weights = self.counts.tally.pairs[number].entries()
        areas = weights if self.counts.cell_area is None else counts * self.counts.cell_area
        return _project(keys[:, 1], keys[:, 2], areas, level, number)

    def _zones(self, number: int, level: Level) -> dict[str, Any]:
        outside, inside = (self._matrix(number, level, zone) for zone in (0, 1))
        return {
            "units": int(inside.sum()),
            "share": float(inside.sum() / (inside.sum() + outside.sum())),
            "inside": scores(inside, level.classes, self.of_table),
            "outside": scores(outside, level.classes, self.of_table),
        }

    def _mapped(self, number: int, level: Level) -> NDArray[np.float64]:
        """Area of each class of a level in a map, over the region, or over its strata."""
        result = np.zeros(len(level.classes) + 1)
        np.add.at(result, _needed(level.maps[number]), _needed(self.counts.areas).of_map(number)[1])
        return result[:-1]

    def _areas(self, number: int, level: Level) -> dict[str, Any]:
        """Estimates with the strata given, else with the map's own finest classes as strata.

        They speak of the ground that the map and the strata know: of the rest no unit is compared.
        """
        tally = self.counts.tally
        strata, classes = _needed(self.counts.areas).of_map(number)
        keys, counts, _ = (tally.strata or tally.pairs)[number].entries()
        if not tally.strata:
            strata, keys = classes[:-1], keys[:, [2, 1, 2]]
        sample = _sample(keys, counts, strata, level, number, own=not tally.strata)
        return {
            "strata": int((strata > 0).sum()),
            "without_stratum": int(self._matrix(number, level).sum() - sample.units.sum()),
            **area_scores(sample, self._mapped(number, level), level.classes),
        }

    def _segments(self, number: int, level: Level) -> dict[str, Any]:
        """Each segment is one object, its class the commonest of its compared cells (the first of equals)."""
        sides = zip(self.counts.tally.segments[number], (level.reference, level.maps[number]), strict=True)
        (ids, true_class), (_, map_class) = (_commonest(counter, _needed(classes)) for counter, classes in sides)
        areas = _needed(self.counts.areas)
        counter = _needed(areas.segments)
        area_keys, sizes = counter.entries()[0], areas.sizes(counter)
        objects = np.zeros((len(level.classes),) * 2, dtype=np.int64)
        ground = np.zeros(objects.shape)
        np.add.at(objects, (true_class, map_class), 1)
        np.add.at(ground, (true_class, map_class), sizes[np.searchsorted(area_keys[:, 0], ids)])
        return {
            "objects": len(ids),
            "without_reference": len(area_keys) - len(ids),
            "by_object": scores(objects, level.classes, self.of_table),
            "by_area": scores(ground, level.classes, self.of_table),
        }

    def _comparison(self, pair: tuple[int, int], level: Level) -> dict[str, Any]:
        keys, counts, _ = self.counts.tally.joint[pair].entries()
        truth = _needed(level.reference)[keys[:, 0]]
        first, second = (_needed(level.maps[number])[keys[:, 1 + axis]] for axis, number in enumerate(pair))
        known = (truth != UNLABELLED) & (first != UNLABELLED) & (second != UNLABELLED)
        right, other = (first == truth) & known, (second == truth) & known
        cases = (right & other, right & ~other, other & ~right, known & ~right & ~other)
        found = Discordance(*(int(counts[case].sum()) for case in cases))
        names = [self.names[number] for number in pair]
        return {"maps": names, **({"level": level.name} if level.name else {}), **found.to_json()}


def value_result(names: Sequence[str], counts: Sequence[ValueCounts], zones: bool) -> dict[str, Any]:
    """Scores of value maps, for JSON.

    Raises:
        DeepLearningError: a map and the reference have no unit in common.
    """
    maps = []
    for name, entry in zip(names, counts, strict=True):
        total = entry.outside + entry.inside
        if not total.count:
            raise DeepLearningError(
                f"Map and reference must share cells inside the region; <{name}> and the reference have none in "
                "common. Check the region with g.region, a mask, and that both cover the same ground."
            )
        result = {"map": name, "units": total.count, "null": entry.null, **_values(total)}
        if zones:
            result["training_footprints"] = {
                "units": entry.inside.count,
                "share": entry.inside.count / total.count,
                "inside": _values(entry.inside),
                "outside": _values(entry.outside),
            }
        maps.append(result)
    return {"without_reference": counts[0].without_reference, "maps": maps}


def _values(sums: RegressionSums) -> dict[str, Any]:
    return {key: value for key, value in regression_scores(sums).items() if key != "count"}


def _project(reference: Codes, mapped: Codes, amounts: NDArray, level: Level, number: int) -> NDArray:
    """(K, K) sums of amounts by the classes of a level."""
    size = len(level.classes)
    rows, cols = _needed(level.reference)[reference], _needed(level.maps[number])[mapped]
    known = (rows != UNLABELLED) & (cols != UNLABELLED)
    matrix = np.zeros((size, size), dtype=amounts.dtype)
    np.add.at(matrix, (rows[known], cols[known]), amounts[known])
    return matrix


def _sample(
    keys: Codes, counts: Codes, stratum_areas: NDArray[np.float64], level: Level, number: int, own: bool
) -> StratifiedSample:
    """The sample at a level; with ``own`` strata each stratum is a class of the map."""
    size = len(level.classes)
    rows, cols = _needed(level.reference)[keys[:, 1]], _needed(level.maps[number])[keys[:, 2]]
    known = (keys[:, 0] < len(stratum_areas)) & (rows != UNLABELLED) & (cols != UNLABELLED)
    used = np.flatnonzero(stratum_areas > 0)
    position = np.full(len(stratum_areas), UNLABELLED)
    position[used] = np.arange(len(used))
    table = np.zeros((len(used), size, size), dtype=np.int64)
    np.add.at(table, (position[keys[known, 0]], rows[known], cols[known]), counts[known])
    holds = _needed(level.maps[number])[used][:, None] == np.arange(size) if own else None
    return StratifiedSample(table, stratum_areas[used], holds)


def _commonest(counter: Counter, classes: Codes) -> tuple[Codes, Codes]:
    """Segments and the commonest class of each, of a counter of (segment, code)."""
    keys, counts, _ = counter.entries()
    return _majority(keys[:, 0], classes[keys[:, 1]], counts)


def _majority(ids: Codes, classes: Codes, counts: Codes) -> tuple[Codes, Codes]:
    """Distinct ids and the class with most counts of each; the smaller class index of equals."""
    order = np.lexsort((classes, ids))
    ids, classes, counts = ids[order], classes[order], counts[order]
    starts = np.flatnonzero(np.append(True, (ids[1:] != ids[:-1]) | (classes[1:] != classes[:-1]))[: len(ids)])
    sums = np.add.reduceat(counts, starts) if len(starts) else counts
    ids, classes = ids[starts], classes[starts]
    order = np.lexsort((classes, -sums, ids))
    first = np.flatnonzero(np.append(True, ids[order][1:] != ids[order][:-1])[: len(ids)])
    return ids[order][first], classes[order][first]


def _needed(value: Any) -> Any:
    if value is None:
        raise ValueError("this level or area was not counted")
    return value
