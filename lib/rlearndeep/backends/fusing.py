"""The fusion network, as its options describe it, for every framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlearndeep.backends.recipes import listed, share, whole
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network

FUSION = "fusion"
"""Name of the architecture."""

_NAME = re.compile(r"auxiliary[1-9]\d?|series")
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
