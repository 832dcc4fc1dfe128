"""What v.sample.patches says of a dataset: counts, the leak report, and remarks its user should read."""

from __future__ import annotations

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PARTS
from rlearndeep.sampling.leakage import closest_parts, overlaps_between_parts
from rlearndeep.sampling.plan import Plan
from rlearndeep.sampling.scene import Scene
from rlearndeep.sampling.settings import Settings
from rlearndeep.sampling.splits import names_parts


def summarize(plan: Plan, scene: Scene) -> dict:
    """Counts of a plan, as v.sample.patches prints them."""
    return {
        "patches": len(plan.patches),
        "parts": {name: int((plan.part == number).sum()) for number, name in enumerate(PARTS)},
        "classes": [
            {"category": entry.category, "label": label, "count": _count_per_part(plan, index)}
            for index, (entry, label) in enumerate(zip(plan.classes, plan.classes.labels, strict=True))
        ],
        "duplicates": plan.duplicates,
        "dropped": plan.dropped.to_json(),
        "overlaps_between_parts": overlaps_between_parts(plan.patches, plan.part, scene.region),
        "closest_parts_distance": closest_parts(plan.patches, plan.part, scene.region),
        "sources": [
            {
                "name": "reference",
                "bands": [band.to_json() for band in scene.bands],
                "size": list(plan.size),
                "resolution": [scene.region.nsres, scene.region.ewres],
                "dtype": scene.dtype.name,
            }
        ],
    }


def _count_per_part(plan: Plan, index: int) -> dict[str, int]:
    """Patches of each part with the class."""
    owners = plan.part[plan.patches.has_class(index)]
    return {name: int((owners == number).sum()) for number, name in enumerate(PARTS)}


def remarks(plan: Plan, settings: Settings, summary: dict) -> list[str]:
    """One sentence per thing in a plan that its user should know."""
    said = []
    wanted = settings.number
    if wanted is not None and plan.found < wanted:
        said.append(f"number= asked for {wanted} patches; {plan.found} were found. Use a smaller size= or stride=.")
    if settings.per_class is not None:
        for entry in summary["classes"]:
            held = sum(entry["count"].values())
            if held < settings.per_class:
                said.append(
                    f"per_class= asked for {settings.per_class} patches of each class; class '{entry['label']}' "
                    f"has {held}."
                )
    if plan.absent:
        said.append(f"No patch has class '{', '.join(plan.absent)}': left out of the dataset.")
    said.extend(_missing(plan, settings, summary))
    overlapping = summary["overlaps_between_parts"]
    if overlapping:
        said.append(
            f"{overlapping} patches overlap a patch of another part: scores on them flatter. "
            "Prefer split=block, or a buffer=."
        )
    if plan.division.straddling:
        said.append(
            f"{plan.division.straddling} patches lie in several groups of the split column, or in none, and were "
            "left out."
        )
    return said


def _missing(plan: Plan, settings: Settings, summary: dict) -> list[str]:
    by_shares = settings.split.kind != "none" and not names_parts(settings.split, plan.table.groups)
    said = []
    for number, name in enumerate(PARTS):
        if by_shares and settings.split.shares[number] == 0:
            continue
        if not summary["parts"][name]:
            continue
        without = [entry["label"] for entry in summary["classes"] if not entry["count"][name]]
        if without:
            said.append(f"The {name} part has no patch with class '{', '.join(without)}'.")
    return said


def check_apart(settings: Settings, summary: dict) -> None:
    """Refuse a plan in which parts overlap although the split promises that they do not.

    Raises:
        DeepLearningError: patches of two parts overlap.
    """
    if summary["overlaps_between_parts"] and settings.split.keeps_apart:
        raise DeepLearningError(
            f"Patches of different parts must not overlap; {summary['overlaps_between_parts']} do. "
            "Choose a larger buffer=, or ask for split=random by name."
        )


def plain_text(summary: dict) -> str:
    """A summary as lines to read."""
    widest = max(len(str(entry["label"])) for entry in summary["classes"])
    widest = max(widest, len("all patches"))
    title = "".join(f"{name:>12}" for name in PARTS)
    lines = [f"{'patches with class':<{widest + 10}}{title}"]
    for entry in summary["classes"]:
        counts = "".join(f"{entry['count'][name]:>12}" for name in PARTS)
        lines.append(f"{entry['category']:>8}  {entry['label']:<{widest}}{counts}")
    counts = "".join(f"{summary['parts'][name]:>12}" for name in PARTS)
    lines.append(f"{'':>8}  {'all patches':<{widest}}{counts}")
    dropped = summary["dropped"]
    identical = "not looked for" if summary["duplicates"] is None else summary["duplicates"]
    distance = summary["closest_parts_distance"]
    lines += [
        "",
        f"patches                    {summary['patches']}",
        f"identical patches          {identical}",
        f"left out: null cells       {dropped['null']}",
        f"left out: too few labels   {dropped['unlabelled']}",
        f"left out: buffer           {dropped['buffer']}",
        f"left out: region's edge    {dropped['edge']}",
        f"overlaps between parts     {summary['overlaps_between_parts']}",
        f"closest parts              {'-' if distance is None else f'{distance:g} map units'}",
    ]
    return "\n".join(lines)
