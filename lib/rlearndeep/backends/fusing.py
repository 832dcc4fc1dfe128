"""The fusion network, as its options describe it, for every framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rlearndeep.backends.recipes import listed, share, whole
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network
from rlearndeep.scene.bands import Band
from rlearndeep.scene.spectrum import counterparts

FUSION = "fusion"
"""Name of the architecture."""

Branches = Mapping[str, tuple[Band, ...]]
"""Bands of the sources that a network has a branch for, by their names."""

Array = TypeVar("Array")

_NAME = re.compile(r"auxiliary[1-9]\d?|series")
_PART = re.compile(rf"(?<![a-z0-9])(?:{_NAME.pattern})(?![a-z0-9])")
_WIDEST = 1024
_MOST_BANDS = 4096


@dataclass(frozen=True)
class BranchOf:
    """What a branch looks at.

    Attributes:
        name: of the source.
        bands: of the source.
        series: whether it has dates.
    """

    name: str
    bands: int
    series: bool


@dataclass(frozen=True)
class Fusing:
    """A network of several sources.

    Attributes:
        sources: those that have a branch.
        reference: whether the image of the reference is looked at; else it only gives the grid.
        per_patch: whether there is one answer per patch.
        widths: filters of the steps of a branch, the finest first.
        dropout: share of the patches from which a source is left out in training.
    """

    sources: tuple[BranchOf, ...]
    reference: bool
    per_patch: bool
    widths: tuple[int, ...]
    dropout: float

    @classmethod
    def of(cls, network: Network) -> Fusing:
        """The options ``sources``, ``reference``, ``unit``, ``filters``, ``blocks`` and ``dropout``.

        Raises:
            DeepLearningError: one of them makes no sense, or there is nothing to look at.
        """
        options = network.options
        sources = tuple(_source(values) for values in listed(options.get("sources", []), "sources", 0))
        names = [source.name for source in sources]
        reference = _flag(options.get("reference", True), "reference")
        if not sources or len(set(names)) != len(names):
            raise DeepLearningError(
                f"The architecture '{FUSION}' joins further sources to the reference, each once; got "
                f"{', '.join(names) or 'none'}. Sample patches with auxiliary= or series=, or choose another "
                "architecture=, such as unet."
            )
        filters = whole(options.get("filters", 32), "filters", _WIDEST)
        widths = tuple(filters * 2**number for number in range(whole(options.get("blocks", 3), "blocks", 5)))
        return cls(sources, reference, options.get("unit") == "patch", widths, share(options.get("dropout", 0.15)))


def growth(card: ModelCard) -> float:
    """How many times more cells of all sources and dates there are than cells of the reference."""
    beside = sum((len(source.dates) or 1) * source.shape[0] * source.shape[1] for source in card.branches)
    return 1 + beside / (card.patch[0] * card.patch[1])


def branch_of(name: str) -> str:
    """The source whose branch an array belongs to, by the name that it has in any framework; empty for others."""
    found = _PART.search(name)
    return found.group() if found else ""


def paired(wanted: Branches, offered: Branches) -> dict[str, str]:
    """For each branch of a network the branch of another one that it begins with; numbers of sources mean nothing.

    A series begins with a series; another source with the one most of whose bands show the same, of equals with that
    of its own name, then with the first. Each serves one branch.
    """
    series = {name for name in (*wanted, *offered) if not name.startswith("auxiliary")}
    ranks = sorted(
        (-sum(at is not None for at in counterparts(bands, others)), mine != theirs, row, column, mine, theirs)
        for row, (mine, bands) in enumerate(wanted.items())
        for column, (theirs, others) in enumerate(offered.items())
        if (mine in series) == (theirs in series)
    )
    found: dict[str, str] = {}
    for *_, mine, theirs in ranks:
        if mine not in found and theirs not in found.values():
            found[mine] = theirs
    return {name: found[name] for name in wanted if name in found}


def under_names(arrays: Mapping[str, Array], pairs: Mapping[str, str]) -> dict[str, Array]:
    """Arrays of another network by the names of the branches that begin with them; the others' are left out."""
    names = {theirs: mine for mine, theirs in pairs.items()}
    return {
        _PART.sub(lambda part: names[part.group()], name): array
        for name, array in arrays.items()
        if not branch_of(name) or branch_of(name) in names
    }


def inputs_in_order(
    pairs: Mapping[str, str], wanted: Branches, offered: Branches, inputs: int, width: int
) -> list[int]:
    """Where the inputs of a last layer per patch stand in that of another network; nothing where some have no place.

    Args:
        pairs: of :func:`paired`.
        wanted, offered: branches of the network, and of the other one.
        inputs: of the other one's layer: features of the reference, then ``width`` of each branch.
        width: channels of a branch.
    """
    first = inputs - width * len(offered)
    if first < 0 or not len(pairs) == len(wanted) == len(offered):
        return []
    starts = (first + width * list(offered).index(pairs[name]) for name in wanted)
    return [*range(first), *(start + channel for start in starts for channel in range(width))]


def _source(values: Any) -> BranchOf:
    if not isinstance(values, Mapping) or not _NAME.fullmatch(str(values.get("name"))):
        raise DeepLearningError(
            f"A further source is called auxiliary1, auxiliary2, ... or series; got '{str(values)[:100]}'."
        )
    bands = whole(values.get("bands"), "bands", _MOST_BANDS)
    return BranchOf(str(values["name"]), bands, _flag(values.get("series", False), "series"))


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise DeepLearningError(f"The option {name} is true or false; got '{str(value)[:100]}'. Choose one of them.")
    return value
