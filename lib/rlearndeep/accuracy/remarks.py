"""What a reader of an assessment should be warned of."""

from __future__ import annotations

from typing import Any

from rlearndeep.accuracy.text import percent

_FEW_UNITS = 2


def remarks(result: dict[str, Any]) -> list[str]:
    """One sentence per doubt about the figures of a result; empty when there is none."""
    found = []
    for entry in result["maps"]:
        found += _training(entry, result)
        if "area" in entry:
            found += _areas(entry, result)
    units = {entry["units"] for entry in result["maps"]}
    if len(units) > 1:
        found.append(
            f"The maps are known at different {result['unit']}; their own scores rest on different ground, the "
            "comparison on what all have."
        )
    return found


def _training(entry: dict[str, Any], result: dict[str, Any]) -> list[str]:
    zones = entry.get("training_footprints")
    if not zones or not zones["units"]:
        return []
    key, name = ("rmse", "RMSE") if result["kind"] == "values" else ("overall_accuracy", "overall accuracy")
    inside, outside = zones["inside"][key], zones["outside"][key]
    figures = f"{name} is {inside:.4g} inside" + (" and there is nothing outside" if outside is None else "")
    figures += "" if outside is None else f", {outside:.4g} outside"
    return [
        f"{percent(zones['share'])} of what <{entry['map']}> is compared with lies inside training footprints: "
        f"{figures}. Quote the figures outside."
    ]


def _areas(entry: dict[str, Any], result: dict[str, Any]) -> list[str]:
    area = entry["area"]
    found = []
    if area["without_stratum"] > 0:
        found.append(
            f"{area['without_stratum']} of {entry['units']} {result['unit']} that <{entry['map']}> is compared with "
            "lie in no stratum; the area-weighted estimates leave them out."
        )
    if area["unsampled"] > 0:
        share = percent(area["unsampled"] / (area["unsampled"] + area["total"]))
        found.append(
            f"{share} of the area of <{entry['map']}> lies in strata without a reference unit; the area-weighted "
            "estimates do not speak of it."
        )
    if area["overall_accuracy"]["standard_error"] is None:
        found.append(
            f"A stratum of <{entry['map']}> holds fewer than {_FEW_UNITS} reference units: some standard errors "
            "cannot be estimated. Sample more units in it or join strata."
        )
    return found
