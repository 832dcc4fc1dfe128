"""The plan of a dataset: which patches, which parts; and its way into a directory.

:func:`make_plan` and :func:`write_plan` are what v.sample.patches calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import INDEX_DTYPE, Manifest, PatchWriter, Source
from rlearndeep.sampling.duplicates import duplicates
from rlearndeep.sampling.labels import LabelTable
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.placement import Chooser, Grid, Placement, places_of_points, random_places
from rlearndeep.sampling.scene import Scene
from rlearndeep.sampling.settings import Settings
from rlearndeep.sampling.splits import LEFT_OUT, Division, divide
from rlearndeep.sampling.survey import Dropped, survey, survey_objects
from rlearndeep.sampling.writing import write_patches
from rlearndeep.scene.bands import BandStatistics
from rlearndeep.scene.classes import ClassTable
from rlearndeep.scene.geometry import Region

# Random places are drawn anew, so many times more, until enough of them are good.
_DRAW_MORE = 4
_MOST_DRAWS = 1 << 24


@dataclass(frozen=True)
class Plan:
    """A dataset before (and after) its cells are read.

    Attributes:
        size: rows and columns of a patch.
        table: with the classes that patches have.
        patches: all that are kept, ordered by first row until duplicates are removed.
        part: position in ``PARTS`` per patch.
        block: block or group per patch.
        division: the split as it was made, of more patches than were kept.
        dropped: places that gave no patch.
        found: patches there were to choose from.
        duplicates: identical patches removed, or found and kept; None before cells were read.
        absent: labels of classes of the source that no patch has.
    """

    size: tuple[int, int]
    table: LabelTable
    patches: PatchSet
    part: NDArray[np.int32]
    block: NDArray[np.int64]
    division: Division
    dropped: Dropped
    found: int
    duplicates: int | None = None
    absent: tuple[str, ...] = ()

    @property
    def classes(self) -> ClassTable:
        """Classes in the order of their indices."""
        return self.table.classes

    def settings_json(self, settings: Settings) -> dict:
        """The settings with the defaults that were chosen, for the manifest."""
        values = settings.to_json()
        values["size"] = list(self.size)
        values["split"] |= {"block_size": self.division.block_size, "buffer": self.division.buffer}
        return {"candidates": self.found, "split": values.pop("split"), "seed": values.pop("seed"), "settings": values}

    def index(self, region: Region) -> NDArray:
        """The index of the directory, a row per patch."""
        patches = self.patches
        rows = np.zeros(len(patches), dtype=INDEX_DTYPE)
        rows["id"] = np.arange(1, len(patches) + 1)
        rows["east"], rows["north"] = patches.centres(region)
        rows["row"], rows["col"] = patches.row, patches.col
        rows["class"], rows["part"], rows["block"] = patches.label, self.part, self.block
        if self.table.has_areas:
            rows["area"] = np.where(patches.area >= 0, self.table.areas[patches.area], 0)
        rows["labelled"] = patches.labelled
        return rows


def make_plan(
    scene: Scene, table: LabelTable, settings: Settings, points: tuple[NDArray, NDArray] | None = None
) -> Plan:
    """Survey the scene, choose patches, and divide them.

    Args:
        points: rows and columns of the cells for ``placement=points``.

    Raises:
        DeepLearningError: no patch can be made, or the split leaves a part without any.
    """
    if settings.size is not None:
        _check_size(settings.size, scene.region)
    if settings.background is not None:
        table = table.with_background(settings.background)
    patches, dropped, found, size = _choose(scene, table, settings, points)
    weights = patches.totals(np.zeros(len(patches), dtype=np.int64), 1, len(table.classes))[0]
    present = weights > 0
    absent = tuple(label for label, here in zip(table.classes.labels, present, strict=True) if not here)
    patches = patches.with_classes(present)
    table = table.restricted_to(present)
    division = divide(patches, settings.split, scene.region, table.groups, len(table.classes), settings.seed)
    kept = division.part != LEFT_OUT
    dropped += Dropped(buffer=int((~kept).sum()))
    return Plan(
        size,
        table,
        patches.take(kept),
        division.part[kept],
        division.block[kept],
        division,
        dropped,
        found,
        absent=absent,
    )


def _check_size(size: tuple[int, int], region: Region) -> None:
    if size[0] > region.rows or size[1] > region.cols:
        raise DeepLearningError(
            f"A patch must fit into the region; size={size[0]},{size[1]} is larger than the region "
            f"({region.rows} rows, {region.cols} columns). Choose a smaller size= or enlarge the region."
        )


def _choose(
    scene: Scene, table: LabelTable, settings: Settings, points: tuple[NDArray, NDArray] | None
) -> tuple[PatchSet, Dropped, int, tuple[int, int]]:
    """The patches wanted, what was dropped, how many there were to choose from, and their size."""
    if settings.rule == "object":
        patches, dropped = survey_objects(scene, table, settings)
        chooser = _chooser(table, settings)
        chooser.add(_checked(patches, dropped))
        size = settings.size or (int(patches.height.max()), int(patches.width.max()))
        return chooser.chosen() or patches, dropped, len(patches), size
    if settings.size is None:
        raise ValueError("only the rule 'object' can do without a size")
    if settings.placement == "random" and settings.size != (1, 1):
        return (*_choose_random(scene, table, settings, settings.size), settings.size)
    placement, edge = _places(scene, settings, settings.size, points)
    chooser = _chooser(table, settings)
    dropped = survey(scene, table, settings, settings.size, placement, chooser) + Dropped(edge=edge)
    return _checked(chooser.chosen(), dropped), dropped, chooser.found, settings.size


def _places(
    scene: Scene, settings: Settings, size: tuple[int, int], points: tuple[NDArray, NDArray] | None
) -> tuple[Placement, int]:
    """Where patches may lie, and how many places would reach beyond the region."""
    if points is not None:
        return places_of_points(*points, scene.region.shape, size)
    stride = (1, 1) if settings.placement == "random" else settings.stride or size
    grid = Grid(scene.region.shape, size, stride)
    return grid, grid.reaching_out


def _choose_random(
    scene: Scene, table: LabelTable, settings: Settings, size: tuple[int, int]
) -> tuple[PatchSet, Dropped, int]:
    wanted = settings.number or (settings.per_class or 0) * len(table.classes)
    total = (scene.region.rows - size[0] + 1) * (scene.region.cols - size[1] + 1)
    draws = wanted + wanted // 8 + 64
    while True:
        placement = random_places(scene.region.shape, size, draws, settings.seed)
        chooser = _chooser(table, settings)
        dropped = survey(scene, table, settings, size, placement, chooser)
        patches = chooser.chosen()
        enough = patches is not None and _enough(patches, settings, len(table.classes))
        if enough or draws >= min(total, _MOST_DRAWS):
            return _checked(patches, dropped), dropped, chooser.found
        draws *= _DRAW_MORE


def _enough(patches: PatchSet, settings: Settings, classes: int) -> bool:
    if settings.number is not None:
        return len(patches) >= settings.number
    return all(patches.has_class(index).sum() >= (settings.per_class or 0) for index in range(classes))


def _chooser(table: LabelTable, settings: Settings) -> Chooser:
    return Chooser(settings.number, settings.per_class, len(table.classes), settings.seed)


def _checked(patches: PatchSet | None, dropped: Dropped) -> PatchSet:
    """The patches, of which there must be one."""
    if patches is not None and len(patches):
        return patches
    if dropped.null and not dropped.unlabelled:
        raise DeepLearningError(
            f"A patch may hold no more than max_null= percent null cells; all {dropped.null} places hold more. "
            "Raise max_null=, choose a smaller size=, or change the region."
        )
    raise DeepLearningError(
        f"A patch needs enough labelled cells that are not null; no place in the region has them (too many nulls: "
        f"{dropped.null}, too few labels: {dropped.unlabelled}, beyond the edge: {dropped.edge}). Set the region to "
        "the labels (g.region), check where=, size=, min_labelled= and max_null=."
    )


def write_plan(
    plan: Plan,
    scene: Scene,
    settings: Settings,
    writer: PatchWriter,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Plan, tuple[BandStatistics, ...]]:
    """Read the cells of a plan into a directory, take duplicates out, and write the index.

    Returns:
        The plan of what is left, and the statistics per band of its training part.
    """
    moments = write_patches(scene, plan.table, plan.patches, writer, settings.memory, progress)
    extra = duplicates(writer, moments.signatures(), plan.part)
    kept = np.arange(len(plan.patches))
    if settings.drop_duplicates and len(extra):
        kept = writer.remove(extra)
    plan = replace(
        plan, patches=plan.patches.take(kept), part=plan.part[kept], block=plan.block[kept], duplicates=len(extra)
    )
    writer.index[:] = plan.index(scene.region)
    training = kept[plan.part == 0]
    if not len(training):
        raise DeepLearningError(
            "The training part needs a patch; all of it was identical with patches of other parts. Use "
            "duplicates=keep, or check the bands."
        )
    return plan, moments.statistics(training)


def describe(plan: Plan, scene: Scene, settings: Settings) -> Manifest:
    """The manifest of a plan, without statistics, report and provenance."""
    source = Source("reference", scene.bands, plan.size, (scene.region.nsres, scene.region.ewres), scene.dtype.name)
    return Manifest(settings.unit, settings.rule, (source,), plan.classes, scene.region)


def complete(
    manifest: Manifest,
    statistics: tuple[BandStatistics, ...],
    report: dict,
    projection: dict[str, Any],
    extent: tuple[float, float, float, float] | None,
    command: str,
) -> Manifest:
    """The manifest with what is known only at the end: statistics, report and provenance."""
    return replace(
        manifest,
        sources=(replace(manifest.reference, statistics=statistics), *manifest.sources[1:]),
        report=report,
        projection=projection,
        extent=extent,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
