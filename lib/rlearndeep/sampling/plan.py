"""The plan of a dataset: which patches, which parts; and its way into a directory.

:func:`make_plan` and :func:`write_plan` are what v.sample.patches calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import INDEX_DTYPE, PARTS, Manifest, PatchWriter, Source
from rlearndeep.sampling.duplicates import ContentKeys, duplicates, first_of_each
from rlearndeep.sampling.labels import LabelTable
from rlearndeep.sampling.patchset import PatchSet
from rlearndeep.sampling.placement import Chooser, Grid, Placement, places_of_points, random_places
from rlearndeep.sampling.scene import Scene
from rlearndeep.sampling.settings import Settings
from rlearndeep.sampling.sources import FurtherSource, with_statistics, write_source
from rlearndeep.sampling.splits import LEFT_OUT, Division, divide
from rlearndeep.sampling.survey import Dropped, survey, survey_objects
from rlearndeep.sampling.writing import write_patches
from rlearndeep.scene.classes import MOST_CLASSES, UNLABELLED, ClassTable
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
        patches: all that are kept, ordered by acquisition and first row until duplicates are removed.
        part: position in ``PARTS`` per patch.
        block: block or group per patch.
        division: the split as it was made, of more patches than were kept.
        dropped: places that gave no patch.
        found: patches there were to choose from.
        duplicates: identical patches removed, or found and kept; None before cells were read.
        passed_over: those of them that were found before the choice, which others made good; None where none
            were looked for.
        absent: labels of classes of the source that no patch has.
        acquisitions: their names.
        task: what a label says, one of ``TASKS``.
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
    passed_over: int | None = None
    absent: tuple[str, ...] = ()
    acquisitions: tuple[str, ...] = ()
    task: str = "class"

    @property
    def classes(self) -> ClassTable:
        """Classes in the order of their indices; none of values and of unlabelled patches."""
        return self.table.named_classes

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
        rows["class"] = patches.label if len(self.classes) else UNLABELLED
        rows["part"], rows["block"] = self.part, self.block
        if patches.acquisition is not None:
            rows["acquisition"] = patches.acquisition
        if self.table.has_areas:
            rows["area"] = np.where(patches.area >= 0, self.table.areas[patches.area], 0)
        rows["labelled"] = 0 if self.table.is_empty else patches.labelled
        return rows


def make_plan(
    scenes: Sequence[Scene],
    table: LabelTable,
    settings: Settings,
    points: tuple[NDArray, NDArray] | None = None,
    acquisitions: Sequence[str] = ("",),
) -> Plan:
    """Survey the scenes, choose patches, and divide them.

    Where identical patches are to be dropped and are likely - of single cells, and of bands coarser than the
    grid - the bands are read once more, so that all patches that are chosen and divided are different.

    Args:
        scenes: one per acquisition, on one grid, with the same bands and labels.
        points: rows and columns of the cells for ``placement=points``.
        acquisitions: names of the scenes.

    Raises:
        DeepLearningError: no patch can be made, or the split leaves a part without any.
    """
    region = scenes[0].region
    if settings.size is not None:
        _check_size(settings.size, region)
    if table.quantity is not None and settings.rule != "density":
        settings.check_values(table.quantity.name, table.has_areas)
    if settings.background is not None:
        table = table.with_background(settings.background)
    choice = _choose(scenes, table, settings, points)
    patches, dropped = choice.patches, choice.dropped
    weights = patches.totals(np.zeros(len(patches), dtype=np.int64), 1, len(table.classes))[0]
    present = weights > 0
    absent = tuple(label for label, here in zip(table.classes.labels, present, strict=True) if not here)
    patches = patches.with_classes(present)
    table = table.restricted_to(present)
    if len(table.classes) > MOST_CLASSES:
        raise DeepLearningError(
            f"Patches have at most {MOST_CLASSES} classes; got {len(table.classes)}. Labels that number objects are no "
            "classes, and quantities belong into a floating point column. Choose another column."
        )
    split = replace(settings.split, kind="none") if table.is_empty else settings.split
    division = divide(patches, split, region, table.groups, len(table.classes), settings.seed, acquisitions)
    kept = division.part != LEFT_OUT
    dropped += Dropped(buffer=int((~kept).sum()))
    return Plan(
        choice.size,
        table,
        patches.take(kept),
        division.part[kept],
        division.block[kept],
        division,
        dropped,
        choice.found,
        duplicates=choice.passed_over,
        passed_over=choice.passed_over,
        absent=absent,
        acquisitions=tuple(acquisitions),
        task=_task(settings, table),
    )


def _task(settings: Settings, table: LabelTable) -> str:
    return "presence" if settings.rule == "presence" else "value" if table.quantity else "class"


def _check_size(size: tuple[int, int], region: Region) -> None:
    if size[0] > region.rows or size[1] > region.cols:
        raise DeepLearningError(
            f"A patch must fit into the region; size={size[0]},{size[1]} is larger than the region "
            f"({region.rows} rows, {region.cols} columns). Choose a smaller size= or enlarge the region."
        )


@dataclass(frozen=True)
class _Choice:
    """Patches, the places that gave none, how many patches there were, and their size.

    Attributes:
        passed_over: patches that are identical with a chosen one; None where none were looked for.
    """

    patches: PatchSet
    dropped: Dropped
    found: int
    size: tuple[int, int]
    passed_over: int | None = None


def _choose(
    scenes: Sequence[Scene], table: LabelTable, settings: Settings, points: tuple[NDArray, NDArray] | None
) -> _Choice:
    """The patches wanted; more are looked at while identical ones leave too few."""
    more, wanted = 1, settings.number or settings.per_class
    while True:
        offer = _offer(scenes, table, settings, points, more)
        choice = _different(offer, scenes, table, settings)
        if wanted is None:
            return choice
        short = _counts(choice.patches, settings, len(table.classes)) < wanted
        if not (short & (_counts(offer.patches, settings, len(table.classes)) >= wanted * more)).any():
            return choice
        more *= _DRAW_MORE


def _counts(patches: PatchSet, settings: Settings, classes: int) -> NDArray[np.int64]:
    """Places, or places of each class where those are limited."""
    places = patches.take(patches.places()[0])
    if settings.per_class is None:
        return np.array([len(places)])
    return np.array([places.has_class(index).sum() for index in range(classes)])


def _offer(
    scenes: Sequence[Scene],
    table: LabelTable,
    settings: Settings,
    points: tuple[NDArray, NDArray] | None,
    more: int,
) -> _Choice:
    """So many times more patches than are wanted, or all there are; identical ones among them."""
    if settings.rule == "object":
        return _offer_objects(scenes, table, settings, more)
    if settings.size is None:
        raise ValueError("only the rule 'object' can do without a size")
    if settings.placement == "random" and settings.size != (1, 1):
        return _offer_random(scenes, table, settings, settings.size, more)
    placement, edge = _places(scenes[0], settings, settings.size, points)
    chooser, dropped = _survey(scenes, table, settings, settings.size, placement, more)
    dropped += Dropped(edge=edge * len(scenes))
    return _Choice(_checked(chooser.chosen(), dropped), dropped, chooser.found, settings.size)


def _different(offer: _Choice, scenes: Sequence[Scene], table: LabelTable, settings: Settings) -> _Choice:
    """The choice from an offer: of different patches, where identical ones are likely and not wanted."""
    likely = offer.size == (1, 1) or any(scene.repeats for scene in scenes)
    # Where places have their parts already, the split must come first: of identical patches the test's stays.
    if not (settings.drop_duplicates and likely and settings.split.goes_by_shares):
        chooser = _chooser(table, settings)
        chooser.add(offer.patches)
        return replace(offer, patches=_checked(chooser.chosen(), offer.dropped))
    contents = ContentKeys(_manifest(table, offer.size, scenes, settings), len(offer.patches))
    write_patches(scenes, table, offer.patches, contents, settings.memory, workers=settings.workers)
    different = first_of_each(contents.keys, offer.patches, settings.seed)
    chooser = _chooser(table, settings)
    chooser.add(offer.patches.take(different))
    patches = _checked(chooser.chosen(), offer.dropped)
    chosen = different[offer.patches.take(different).stand_where(patches)]
    passed_over = int(np.isin(contents.keys, contents.keys[chosen]).sum()) - len(chosen)
    return replace(offer, patches=patches, passed_over=passed_over)


def _survey(
    scenes: Sequence[Scene],
    table: LabelTable,
    settings: Settings,
    size: tuple[int, int],
    placement: Placement,
    more: int,
) -> tuple[Chooser, Dropped]:
    """What all acquisitions offer at the places of a placement."""
    chooser, dropped = _chooser(table, settings, more), Dropped()
    for scene, number in _numbered(scenes):
        dropped += survey(scene, table, settings, size, placement, chooser, number)
    return chooser, dropped


def _numbered(scenes: Sequence[Scene]) -> list[tuple[Scene, int | None]]:
    """Scenes with the numbers of their acquisitions; a single one has no number."""
    return [(scene, number if len(scenes) > 1 else None) for number, scene in enumerate(scenes)]


def _offer_objects(scenes: Sequence[Scene], table: LabelTable, settings: Settings, more: int) -> _Choice:
    chooser, dropped = _chooser(table, settings, more), Dropped()
    for scene, number in _numbered(scenes):
        patches, lost = survey_objects(scene, table, settings, number)
        dropped += lost
        chooser.add(patches)
    chosen = _checked(chooser.chosen(), dropped)
    size = settings.size or (int(chosen.height.max()), int(chosen.width.max()))
    return _Choice(chosen, dropped, chooser.found, size)


def _places(
    scene: Scene, settings: Settings, size: tuple[int, int], points: tuple[NDArray, NDArray] | None
) -> tuple[Placement, int]:
    """Where patches may lie, and how many places would reach beyond the region."""
    if points is not None:
        return places_of_points(*points, scene.region.shape, size)
    stride = (1, 1) if settings.placement == "random" else settings.stride or size
    grid = Grid(scene.region.shape, size, stride)
    return grid, grid.reaching_out


def _offer_random(
    scenes: Sequence[Scene], table: LabelTable, settings: Settings, size: tuple[int, int], more: int
) -> _Choice:
    region, wanted = scenes[0].region, (settings.number or settings.per_class or 0) * more
    total = (region.rows - size[0] + 1) * (region.cols - size[1] + 1)
    in_all = wanted * (len(table.classes) if settings.per_class else 1)
    draws = in_all + in_all // 8 + 64
    while True:
        placement = random_places(region.shape, size, draws, settings.seed)
        chooser, dropped = _survey(scenes, table, settings, size, placement, more)
        patches = chooser.chosen()
        enough = patches is not None and (_counts(patches, settings, len(table.classes)) >= wanted).all()
        if enough or draws >= min(total, _MOST_DRAWS):
            return _Choice(_checked(patches, dropped), dropped, chooser.found, size)
        draws *= _DRAW_MORE


def _chooser(table: LabelTable, settings: Settings, more: int = 1) -> Chooser:
    number, per_class = (limit and limit * more for limit in (settings.number, settings.per_class))
    return Chooser(number, per_class, len(table.classes), settings.seed)


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
    scenes: Sequence[Scene],
    settings: Settings,
    writer: PatchWriter,
    progress: Callable[[int, int], None] = lambda done, total: None,
    further: Sequence[FurtherSource] = (),
    done_with_scenes: Callable[[], None] = lambda: None,
) -> tuple[Plan, tuple[Source, ...]]:
    """Read the cells of a plan into a directory, take duplicates out, and write the index.

    Args:
        further: sources beside the reference, as :func:`describe` was given them.
        done_with_scenes: called when the scenes are read no more, before a further source is opened.

    Returns:
        The plan of what is left, and the sources with the statistics of its training part.
    """
    region, count = scenes[0].region, len(plan.patches)
    layers = 1 + sum(len(other.source.dates) or 1 for other in further)
    written = [0]

    def tell(more: int) -> None:
        written[0] += more
        progress(written[0], layers * count)

    moments = write_patches(
        scenes,
        plan.table,
        plan.patches,
        writer,
        settings.memory,
        lambda done, _: progress(done, layers * count),
        settings.workers,
    )
    done_with_scenes()
    written[0] = count
    found = [(writer.manifest.reference, [moments])]
    for other in further:
        places = plan.patches.centres(region)
        found.append((other.source, write_source(other, *places, writer, settings.memory, tell)))
    extra = duplicates(writer, moments.signatures(), plan.part)
    kept = np.arange(count)
    if settings.drop_duplicates and len(extra):
        kept = writer.remove(extra)
    plan = replace(
        plan,
        patches=plan.patches.take(kept),
        part=plan.part[kept],
        block=plan.block[kept],
        duplicates=len(extra) + (plan.passed_over or 0),
    )
    _check_left(plan)
    writer.index[:] = plan.index(region)
    training = kept[plan.part == 0]
    return plan, tuple(with_statistics(source, per_layer, training) for source, per_layer in found)


def _check_left(plan: Plan) -> None:
    """Duplicates may have been all that a part had."""
    before = plan.division.part
    for number, name in enumerate(PARTS):
        if (before == number).any() and not (plan.part == number).any():
            raise DeepLearningError(
                f"The {name} part needs a patch; all of it was identical with patches of other parts. Use "
                "duplicates=keep, or check the bands."
            )


def describe(
    plan: Plan, scenes: Sequence[Scene], settings: Settings, further: Sequence[FurtherSource] = ()
) -> Manifest:
    """The manifest of a plan, without statistics, report and provenance."""
    manifest = _manifest(plan.table, plan.size, scenes, settings)
    return replace(manifest, sources=(*manifest.sources, *(other.source for other in further)))


def _manifest(table: LabelTable, size: tuple[int, int], scenes: Sequence[Scene], settings: Settings) -> Manifest:
    region, first = scenes[0].region, scenes[0]
    return Manifest(
        "patch" if table.is_empty else settings.unit,
        "none" if table.is_empty else settings.rule,
        (Source("reference", first.bands, size, (region.nsres, region.ewres), first.dtype.name),),
        table.named_classes,
        region,
        task=_task(settings, table),
        quantity=table.quantity,
    )


def complete(
    manifest: Manifest,
    sources: tuple[Source, ...],
    report: dict,
    projection: dict[str, Any],
    extent: tuple[float, float, float, float] | None,
    command: str,
) -> Manifest:
    """The manifest with what is known only at the end: statistics, report and provenance."""
    return replace(
        manifest,
        sources=sources,
        report=report,
        projection=projection,
        extent=extent,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
