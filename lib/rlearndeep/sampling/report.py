"""What v.sample.patches says of a dataset: counts, the leak report, and remarks its user should read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PARTS, PatchWriter
from rlearndeep.sampling.leakage import closest_parts, overlaps_between_parts
from rlearndeep.sampling.plan import Plan
from rlearndeep.sampling.scene import Scene
from rlearndeep.sampling.settings import Settings
from rlearndeep.sampling.sources import FurtherSource, coverage
from rlearndeep.sampling.splits import names_parts, wished_parts

# A part may miss its share by so many percent of all patches before that is said.
_SHARE_TOLERANCE = 5.0

_CELLS_AT_ONCE = 1 << 20

# A spread of larger numbers is infinite in the type that networks compute in.
_LARGEST = float(np.sqrt(np.finfo(np.float32).max))

# More whole numbers than this are hardly names of classes.
_MOST_LIKE_CLASSES = 32

# Longer lists nobody reads, and no program could be given as an argument.
_MOST_LISTED = 20


def summarize(plan: Plan, scenes: Sequence[Scene], further: Sequence[FurtherSource] = ()) -> dict:
    """Counts of a plan, as v.sample.patches prints them."""
    region, scene = scenes[0].region, scenes[0]
    overlaps, same_ground = overlaps_between_parts(plan.patches, plan.part, region)
    return {
        "patches": len(plan.patches),
        "parts": _per_part(plan.part),
        "classes": [
            {
                "category": entry.category,
                "label": label,
                "count": _per_part(plan.part[plan.patches.has_class(index)]),
            }
            for index, (entry, label) in enumerate(zip(plan.classes, plan.classes.labels, strict=True))
        ],
        "duplicates": plan.duplicates,
        "dropped": plan.dropped.to_json(),
        "overlaps_between_parts": overlaps,
        "same_ground_between_parts": same_ground,
        "closest_parts_distance": closest_parts(plan.patches, plan.part, region),
        "acquisitions": [
            {"name": name, "count": _per_part(plan.part[plan.patches.of_acquisition(number)])}
            for number, name in enumerate(plan.acquisitions)
        ],
        "sources": [
            {
                "name": "reference",
                "bands": [band.to_json() for band in scene.bands],
                "size": list(plan.size),
                "resolution": [region.nsres, region.ewres],
                "dtype": scene.dtype.name,
            },
            *(_source(other) for other in further),
        ],
    }


def _source(further: FurtherSource) -> dict:
    source = further.source
    return {
        "name": source.name,
        "bands": [band.to_json() for band in source.bands],
        "size": list(source.shape),
        "resolution": list(source.resolution),
        "dtype": source.dtype,
        "dates": list(source.dates),
    }


def _per_part(part: NDArray[np.int32]) -> dict[str, int]:
    return {name: int((part == number).sum()) for number, name in enumerate(PARTS)}


def add_contents(summary: dict, writer: PatchWriter, part: NDArray[np.int32]) -> None:
    """Add to a summary what is known only of patches that were read: values, and how much the sources cover.

    Raises:
        DeepLearningError: labels that are infinite, or so large that they must mean something else.
    """
    for entry, source in zip(summary["sources"][1:], writer.manifest.sources[1:], strict=True):
        entry.update(coverage(writer, source))
    if writer.manifest.quantity is not None:
        labels = np.asarray(writer.labels)
        summary["values"] = {
            "quantity": writer.manifest.quantity.to_json(),
            **{name: _moments(labels[part == number]) for number, name in enumerate(PARTS)},
            "whole_numbers": few_whole_numbers(labels),
        }


def few_whole_numbers(labels: NDArray[np.float32]) -> list[int] | None:
    """The values of labels, ascending, when they are whole numbers and so few that they may be names of classes."""
    found: set[float] = set()
    cells = labels.reshape(-1)
    for first in range(0, len(cells), _CELLS_AT_ONCE):
        values = cells[first : first + _CELLS_AT_ONCE]
        values = np.unique(values[~np.isnan(values)])
        found.update(values.tolist())
        if (values != np.rint(values)).any() or len(found) > _MOST_LIKE_CLASSES:
            return None
    return sorted(map(int, found))


def _moments(values: NDArray[np.float32]) -> dict[str, float | int] | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if not (low > -_LARGEST and high < _LARGEST):
        raise DeepLearningError(
            f"Values of labels must be finite, and small enough to be squared; they run from {low:g} to {high:g}. If "
            "one of them means no data, set it to null (r.null setnull=, r.mapcalc, v.db.update)."
        )
    return {
        "count": len(values),
        "minimum": low,
        "maximum": high,
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
    }


def remarks(plan: Plan, settings: Settings, summary: dict) -> list[str]:
    """One sentence per thing in a plan that its user should know."""
    return [
        *_wanted(plan, settings, summary),
        *_shares(plan, settings, summary),
        *_missing(plan, settings, summary),
        *_leaks(plan, settings, summary),
        *_names_perhaps(settings, summary),
        *_same_names(plan),
        *(
            f"In {source['patches_without']} patches source '{source['name']}' has no valid cell: it does not cover "
            "all of the places."
            for source in summary["sources"]
            if source.get("patches_without")
        ),
    ]


def _wanted(plan: Plan, settings: Settings, summary: dict) -> Iterator[str]:
    """What was found against what was asked for."""
    places, wanted = plan.division.places, settings.number
    if wanted is not None and places < wanted:
        different = " different" if plan.passed_over else ""
        yield f"number= asked for {wanted} patches; {places}{different} were found. Use a smaller size= or stride=."
    if settings.per_class is not None:
        patches = plan.patches.take(plan.patches.places()[0])
        held = [int(patches.has_class(index).sum()) for index in range(len(plan.classes))]
        fewer = [(entry["label"], have) for entry, have in zip(summary["classes"], held, strict=True)]
        fewer = [(label, have) for label, have in fewer if have < settings.per_class]
        asked = f"per_class= asked for {settings.per_class} patches of each class;"
        yield from (f"{asked} class '{label}' has {have}." for label, have in fewer[:_MOST_LISTED])
        if len(fewer) > _MOST_LISTED:
            yield f"{asked} {len(fewer) - _MOST_LISTED} more classes have fewer."
    if plan.absent and len(plan.classes):
        yield f"No patch has class '{_listed(plan.absent)}': left out of the dataset."
    late = (plan.duplicates or 0) - (plan.passed_over or 0)
    if wanted is not None and settings.drop_duplicates and late:
        yield (
            f"number= chose {places} patches; {late} of them were identical with others and are left out. "
            "Ask for more, or use duplicates=keep."
        )
    if plan.division.straddling:
        yield (
            f"{plan.division.straddling} patches lie in several groups of the split column, or in none, and were "
            "left out."
        )


def _same_names(plan: Plan) -> Iterator[str]:
    """Classes of one name, which later no text can tell apart: capitals do not matter where texts are compared."""
    named: dict[str, list[str]] = {}
    for entry in plan.classes:
        if entry.label:
            named.setdefault(entry.label.casefold(), []).append(f"{entry.category} '{entry.label}'")
    same = [" and ".join(classes) for classes in named.values() if len(classes) > 1]
    if same:
        yield (
            f"Classes {_listed(same)} have one name but for capitals, and count as several. If they are one, give them "
            "one label in the column, or one category."
        )


def _by_shares(plan: Plan, settings: Settings) -> bool:
    """True when the shares decide how large the parts are."""
    split = settings.split
    if plan.table.is_empty or split.kind == "none" or names_parts(split, plan.table.groups):
        return False
    return not (split.kind == "acquisition" and (split.validation or split.test))


def _shares(plan: Plan, settings: Settings, summary: dict) -> Iterator[str]:
    if not _by_shares(plan, settings):
        return
    held = [100 * count / max(1, summary["patches"]) for count in summary["parts"].values()]
    asked = [100 * share for share in settings.split.shares]
    if max(abs(have - want) for have, want in zip(held, asked, strict=True)) > _SHARE_TOLERANCE:
        yield (
            f"shares= asked for {_numbers(asked)} percent in {', '.join(PARTS)}; after buffer and duplicates the parts "
            f"hold {_numbers(held)}."
        )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _missing(plan: Plan, settings: Settings, summary: dict) -> Iterator[str]:
    for number, name in enumerate(PARTS):
        if _by_shares(plan, settings) and settings.split.shares[number] == 0:
            continue
        if not summary["parts"][name]:
            split = settings.split
            if split.kind in ("column", "acquisition") and number in wished_parts(split, plan.table.groups):
                yield (
                    f"The {name} part was asked for and has no patch: none of its places lies in the region, has "
                    "enough labels and keeps the buffer."
                )
            continue
        without = [
            entry["label"] + _where(plan, index)
            for index, entry in enumerate(summary["classes"])
            if not entry["count"][name]
        ]
        if without:
            yield f"The {name} part has no patch with class {_listed(without)}."


def _listed(names: Sequence[str]) -> str:
    """Names for a message; of very many only the first."""
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def _where(plan: Plan, index: int) -> str:
    """In how many blocks (or groups) a class stands, where there are such: one that stands in few reaches few parts."""
    blocks = np.unique(plan.block[plan.patches.has_class(index)])
    return f" (in {len(blocks)} of {len(np.unique(plan.block))} blocks)" if blocks.any() else ""


def _leaks(plan: Plan, settings: Settings, summary: dict) -> Iterator[str]:
    overlapping, same_ground = summary["overlaps_between_parts"], summary["same_ground_between_parts"]
    if overlapping:
        yield (
            f"{overlapping} patches overlap a patch of another part: scores on them flatter. "
            "Prefer split=block, or a buffer=."
        )
    if same_ground and settings.split.kind == "acquisition":
        yield (
            f"{same_ground} of {summary['patches']} patches show ground that another part shows at another date. "
            "Scores will say how the model does at other dates of known ground, not on other ground; for that use "
            "split=block."
        )
    elif same_ground:
        yield f"{same_ground} patches overlap a patch of another part in another acquisition: scores on them flatter."


def _names_perhaps(settings: Settings, summary: dict) -> Iterator[str]:
    """Floating point maps of classes are common, and learning their numbers as quantities is not what is wanted."""
    numbers = summary.get("values", {}).get("whole_numbers")
    if numbers and settings.rule != "density":
        name = summary["values"]["quantity"]["name"]
        yield (
            f"The labels are quantities of {name} (regression), all of them whole numbers: "
            f"{_listed([str(number) for number in numbers])}. If these are classes, make the raster or column integer."
        )


def check_apart(settings: Settings, summary: dict) -> None:
    """Refuse a plan in which parts overlap although the split promises that they do not.

    Raises:
        DeepLearningError: patches of two parts overlap.
    """
    overlaps = summary["overlaps_between_parts"] + summary["same_ground_between_parts"]
    if overlaps and settings.split.keeps_apart:
        raise DeepLearningError(
            f"Patches of different parts must not overlap; {overlaps} do. "
            "Choose a larger buffer=, or ask for split=random by name."
        )


def plain_text(summary: dict) -> str:
    """A summary as lines to read."""
    return "\n".join([*_table(summary), "", *_values(summary), *_facts(summary)])


def _table(summary: dict) -> list[str]:
    """Patches per class, acquisition and part."""
    acquisitions = summary["acquisitions"] if len(summary["acquisitions"]) > 1 else []
    names = [*(str(entry["label"]) for entry in summary["classes"]), *(entry["name"] for entry in acquisitions)]
    widest = max(map(len, [*names, "all patches"]))
    title = "".join(f"{name:>12}" for name in PARTS)

    def line(number: object, name: str, counts: dict[str, int]) -> str:
        return f"{number:>8}  {name:<{widest}}" + "".join(f"{counts[part]:>12}" for part in PARTS)

    heading = "patches with class" if summary["classes"] else "patches"
    return [
        f"{heading:<{widest + 10}}{title}",
        *(line(entry["category"], entry["label"], entry["count"]) for entry in summary["classes"]),
        *(line("", entry["name"], entry["count"]) for entry in acquisitions),
        line("", "all patches", summary["parts"]),
    ]


def _values(summary: dict) -> list[str]:
    if "values" not in summary:
        return []
    values = summary["values"]
    units = f" ({values['quantity']['units']})" if values["quantity"]["units"] else ""
    lines = [f"{values['quantity']['name'] + units:<26} {'minimum':>12}{'mean':>12}{'maximum':>12}{'std':>12}"]
    for name in PARTS:
        if values[name]:
            numbers = (values[name][key] for key in ("minimum", "mean", "maximum", "std"))
            lines.append(f"  {name:<24} " + "".join(f"{number:>12.6g}" for number in numbers))
    return [*lines, ""]


def _facts(summary: dict) -> list[str]:
    dropped = summary["dropped"]
    distance = summary["closest_parts_distance"]
    facts: list[tuple[str, object]] = [
        ("patches", summary["patches"]),
        ("identical patches", "not looked for" if summary["duplicates"] is None else summary["duplicates"]),
        ("left out: null cells", dropped["null"]),
        ("left out: too few labels", dropped["unlabelled"]),
        ("left out: buffer", dropped["buffer"]),
        ("left out: region's edge", dropped["edge"]),
        ("overlaps between parts", summary["overlaps_between_parts"]),
    ]
    if summary["same_ground_between_parts"]:
        facts.append(("same ground, other date", f"{summary['same_ground_between_parts']} in two parts"))
    facts.append(("closest parts", "-" if distance is None else f"{distance:g} map units"))
    agreement = summary.get("agreement")
    if agreement:
        percent = "-" if agreement["percent"] is None else f"{agreement['percent']:g} %"
        facts.append(("agreement of two maps", f"{percent} of {agreement['cells']} cells"))
    return [f"{name:<27}{value}" for name, value in facts]
