"""What a user should know before a network is trained, and of the trained one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.ground import lies_over
from rlearndeep.learning.sources import FUSION
from rlearndeep.patches import PARTS, PatchDataset
from rlearndeep.scene.bands import SMALLEST_SPREAD

# A smaller share of labels that are lost is not worth a message.
_NOTABLE = 0.01
_RARE = 0.05

# Cells that differ more in size show the network other things.
_RATIO = 1.25

# A deviation of so few roundings loses some percent of itself.
_ROUNDINGS = 16


def of_labels(sites: Sites, parts: Mapping[str, Part], counts: Mapping[str, NDArray[np.int64]]) -> Iterator[str]:
    """Classes and parts that are missing."""
    absent = [label for label, number in zip(sites.classes.labels, counts["training"], strict=True) if not number]
    if absent:
        yield f"The training part has no label of: {', '.join(absent)}. The model will not know these classes."
    if not len(parts["validation"]):
        yield "There is no validation part: all epochs are trained and the last one is kept."
    if not len(parts["validation"]) and not len(parts["test"]):
        yield "There is neither a validation nor a test part: the scores are those of the training part."


def of_sites(datasets: Sequence[PatchDataset]) -> Iterator[str]:
    """Patches that judge the network and show ground that it learns from in another directory."""
    known = [(dataset, _over_others(dataset, datasets)) for dataset in datasets]
    found = {part: sum(int(over[dataset.positions(part)].sum()) for dataset, over in known) for part in PARTS[1:]}
    if any(found.values()):
        shown = " and ".join(f"{count} patches of the {part} part" for part, count in found.items() if count)
        yield (
            f"{shown} lie over training patches of another directory of patches=: the network knows their ground, and "
            "the scores may be better than elsewhere. Sample places that lie apart, or split all by one column "
            "(split=column)."
        )


def of_resolutions(datasets: Sequence[PatchDataset]) -> Iterator[str]:
    """The first directory whose cells are of notably another size than those of the first one.

    In another projection the size of a cell is not compared.
    """
    first = datasets[0]
    for other in datasets[1:]:
        sizes = [dataset.manifest.reference.resolution for dataset in (first, other)]
        ratios = np.divide(sizes[0], sizes[1])
        if other.manifest.projection == first.manifest.projection and max(*ratios, *1 / ratios) > _RATIO:
            mine, theirs = (f"{rows:g} x {cols:g}" for rows, cols in sizes)
            yield (
                f"Patches of '{other.path}' have cells of {theirs} map units, those of '{first.path}' of {mine}: the "
                "network sees the same things in different sizes, and prediction expects the latter. Sample all at one "
                "resolution."
            )
            return


def of_bands(sites: Sites) -> Iterator[str]:
    """Bands that tell a network little, or less than they could."""
    names = [source.source.name for source in sites.sites[0].branches]
    bands = [*zip(sites.bands, sites.statistics, strict=True)] if sites.choice.has_reference else []
    for source in (entry.source for entry in sites.further if entry.source.name in names):
        bands += zip(source.bands, sites.statistics_of(source.name), strict=True)
    same = [band.name for band, values in bands if not values.varies]
    if same:
        yield (
            f"The network learns nothing of {', '.join(same)}: its values in the training part are the same, or "
            "differ by less than seven digits tell."
        )
    coarse = [
        f"{band.name} (mean {values.mean:g}, standard deviation {values.std:g})"
        for band, values in bands
        if values.varies and values.std < _ROUNDINGS * SMALLEST_SPREAD * abs(values.mean)
    ]
    if coarse:
        yield (
            f"Networks compute with seven digits, which round off much of the differences in {', '.join(coarse)}. "
            "Subtract a number near the mean with r.mapcalc before sampling."
        )


def of_weights(initial: Any) -> Iterator[str]:
    """Terms of the weights that training begins with."""
    if initial is not None and initial.licence:
        yield f"The weights of {initial.origin} are not free for every use; their licence: {initial.licence}."


def of_sources(sites: Sites, parts: Mapping[str, Part], is_chosen: bool) -> Iterator[str]:
    """Sources that are left aside or absent; ``is_chosen`` where the user named the sources."""
    aside = [source.name for source in sites.manifest.sources if source.name not in sites.choice.names]
    if aside and not is_chosen:
        yield (
            f"A network without branches does not know dates; {', '.join(aside)} of the patches is left aside. "
            f"architecture={FUSION} looks at it."
        )
    lost = sum(sites.labelled(name) - len(part) for name, part in parts.items())
    if lost:
        yield f"{lost} labelled patches are left out: {_needed(sites)} no valid cell there."
    if sites.sites[0].stacked and sites.manifest.unit == "cell":
        yield from _lost_cells(sites, parts)
    branches = [source.source.name for source in sites.sites[0].branches]
    # Patches without the only source are left out.
    for name in branches if sites.choice.has_reference or len(branches) > 1 else ():
        without = sum(_without(site.dataset.manifest.report, name) for site in sites.sites)
        if without:
            total = sum(len(site.dataset) for site in sites.sites)
            yield f"{name} has no valid cell in {without} of {total} patches; the network learns to do without it."


def of_scores(training: Mapping[str, Any], unit: str) -> Iterator[str]:
    """Classes that the network does not even find where it was trained on them.

    Args:
        training: scores of the training part.
        unit: of a label, ``cell`` or ``patch``.
    """
    classes = training.get("classes", ())
    total = sum(entry["support"] for entry in classes)
    unfound = [entry for entry in classes if entry["recall"] == 0]
    if unfound:
        shares = ", ".join(
            f"{_name(entry)} ({100 * entry['support'] / total:.2g} % of the labels)" for entry in unfound
        )
        way_out = "More epochs= may help, or bands that show it"
        if max(entry["support"] for entry in unfound) < _RARE * total:
            way_out = (
                "What is rare weighs little in the loss: loss=cross_entropy+dice or class_weights=balanced may help, "
                "or more samples of it (per_class=)"
            )
        yield f"The network finds no {unit} of {shares}, even in the training part. {way_out}."


def of_pictures(largest: tuple[int, int] | None, is_fixed: bool) -> Iterator[str]:
    """A network that is not shown larger pictures than patches; ``is_fixed`` where it cannot be."""
    if largest is not None:
        why = "Within a larger picture the network does worse than in patches of its own"
        if is_fixed:
            why = "The network is made for pictures of one size"
        yield (
            f"{why}: maps will be made from tiles of the size of a patch. For better ones, sample larger patches "
            "(size=)."
        )


def _over_others(dataset: PatchDataset, datasets: Sequence[PatchDataset]) -> NDArray[np.bool_]:
    """True for each patch that lies over training patches of another directory."""
    over = np.zeros(len(dataset), dtype=bool)
    for other in datasets:
        if other is not dataset:
            over |= lies_over(dataset, other, other.positions("training"))
    return over


def _name(entry: Mapping[str, Any]) -> str:
    category, label = str(entry["category"]), entry["label"]
    return f"class {category}" if label == category else label


def _needed(sites: Sites) -> str:
    stacked = [source.source.name for source in sites.sites[0].stacked]
    return f"{' or '.join(stacked)} has" if stacked else "the sources have"


def _lost_cells(sites: Sites, parts: Mapping[str, Part]) -> Iterator[str]:
    """Labelled cells that a stacked source takes out of training."""
    cells, hidden = np.sum([part.hidden_cells() for part in parts.values()], axis=0)
    if hidden > _NOTABLE * cells:
        names = " and ".join(source.source.name for source in sites.sites[0].stacked)
        yield (
            f"{100 * hidden / cells:.0f} % of the labelled cells are left out, as {names} is null there or was "
            "not sampled that far; if the latter, sample with a larger auxiliary_size=."
        )


def _without(report: Mapping[str, Any], name: str) -> int:
    """Patches without a valid cell of a source, as v.sample.patches reported them."""
    entries = report.get("sources") or ()
    return next((int(entry.get("patches_without", 0)) for entry in entries if entry.get("name") == name), 0)
