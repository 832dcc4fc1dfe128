"""Which of the sources that the user gave serves which source of the models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, ModelSource
from rlearndeep.prediction.branches import Branch
from rlearndeep.scene.bands import Band, listed_bands, match_bands

SERIES = "series"


@dataclass(frozen=True)
class Offer:
    """A further source that the user gave.

    Attributes:
        name: of its group or groups, for messages.
        bands: in the order in which they can be read.
        dates: of a series; empty for other sources.
    """

    name: str
    bands: tuple[Band, ...]
    dates: tuple[str, ...] = ()

    @property
    def is_series(self) -> bool:
        """Whether it has dates."""
        return bool(self.dates)


@dataclass(frozen=True)
class Arrangement:
    """How what was given serves the models.

    Attributes:
        reference: positions of the bands that are read, in the reference group.
        offers: by the name of a source of the models, the number of the offer that serves it.
        bands: by the same name, positions of the bands that are read, in the offer.
        layers: name and resampling method of the sources whose bands stand behind those of the reference, in order.
        positions: for each model, of its bands among those of the reference and the layers.
        branches: for each model.
        absent: names of sources with a branch that nothing was given for.
    """

    reference: tuple[int, ...]
    offers: Mapping[str, int]
    bands: Mapping[str, tuple[int, ...]]
    layers: tuple[tuple[str, str], ...]
    positions: tuple[tuple[int, ...], ...]
    branches: tuple[tuple[Branch, ...], ...]
    absent: tuple[str, ...]

    @property
    def stacked_bands(self) -> int:
        """Number of bands behind those of the reference."""
        return sum(len(self.bands[name]) for name, _ in self.layers)


def arrange(cards: Sequence[ModelCard], reference: Sequence[Band], offers: Sequence[Offer]) -> Arrangement:
    """Match bands and sources by semantic label, then by name; sources with the same bands by their order.

    Args:
        cards: the models.
        reference: bands of the reference group.
        offers: what else was given; those that are not a series in the order of the user.

    Raises:
        DeepLearningError: a band or a resampled source is missing, or an offer fits no source; both sides are shown.
    """
    own = [match_bands(card.reference_bands, reference) for card in cards]
    needed = _distinct(position for positions in own for position in positions)
    found = _assign(cards, offers)
    bands = {name: _needed_bands(cards, name, offers[number]) for name, number in found.items()}
    layers = tuple(dict.fromkeys((source.name, source.use) for card in cards for source in card.stacked))
    first, offsets = len(needed), {}
    for layer in layers:
        offsets[layer] = first
        first += len(bands[layer[0]])
    positions, branches = [], []
    for card, mine in zip(cards, own, strict=True):
        places = {
            source.name: _places(source, offers[found[source.name]], bands[source.name])
            for source in card.sources
            if source.name in found
        }
        behind = [offsets[one.name, one.use] + place for one in card.stacked for place in places[one.name]]
        positions.append((*(needed.index(position) for position in mine), *behind))
        dates = {name: len(offers[number].dates) for name, number in found.items()}
        branches.append(tuple(Branch(one, places.get(one.name, ()), dates.get(one.name, 0)) for one in card.branches))
    absent = tuple(name for name in _names(cards) if name not in found)
    return Arrangement(tuple(needed), found, bands, layers, tuple(positions), tuple(branches), absent)


def _distinct(values: Iterator[int]) -> list[int]:
    return list(dict.fromkeys(values))


def _names(cards: Sequence[ModelCard]) -> list[str]:
    """Names of the further sources of all models: auxiliary ones in order, then the series."""
    names = {source.name for card in cards for source in card.sources}
    return sorted(names, key=lambda name: (name == SERIES, len(name), name))


def _sources(cards: Sequence[ModelCard], name: str) -> list[ModelSource]:
    return [source for card in cards for source in card.sources if source.name == name]


def _places(source: ModelSource, offer: Offer, read: Sequence[int]) -> tuple[int, ...]:
    return tuple(read.index(position) for position in match_bands(source.bands, offer.bands))


def _needed_bands(cards: Sequence[ModelCard], name: str, offer: Offer) -> tuple[int, ...]:
    found = (match_bands(source.bands, offer.bands) for source in _sources(cards, name))
    return tuple(_distinct(position for positions in found for position in positions))


def _fits(cards: Sequence[ModelCard], name: str, offer: Offer) -> bool:
    if offer.is_series != (name == SERIES):
        return False
    try:
        _needed_bands(cards, name, offer)
    except DeepLearningError:
        return False
    return True


def _assign(cards: Sequence[ModelCard], offers: Sequence[Offer]) -> dict[str, int]:
    """Numbers of the offers by the names of the sources that they serve."""
    names = _names(cards)
    must = {source.name for card in cards for source in card.stacked}
    fitting = [[name for name in names if _fits(cards, name, offer)] for offer in offers]
    serving = [[number for number, fit in enumerate(fitting) if name in fit] for name in must]
    for chosen in () if _crowded(fitting) or _crowded(serving) else _choices(fitting, ()):
        if must <= set(chosen):
            return {name: chosen.index(name) for name in names if name in chosen}
    raise DeepLearningError(
        f"Further sources must match those the model was trained with; it looks at {_wanted(cards, names)}; given "
        f"beside the reference: {_given(offers)}. Give auxiliary= and series= as in training, in groups with maps of "
        "the same semantic labels (r.semantic.label) or names."
    )


def _crowded(partners: Sequence[Sequence]) -> bool:
    """Whether more of them have the same partners, and no others, than there are; to try all ways would take ages."""
    return any(partners.count(own) > len(own) for own in partners)


def _choices(fitting: Sequence[Sequence[str]], taken: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Ways to give each offer a source of its own; the first is the one that follows the order of both."""
    if len(taken) == len(fitting):
        yield taken
        return
    for name in fitting[len(taken)]:
        if name not in taken:
            yield from _choices(fitting, (*taken, name))


def _wanted(cards: Sequence[ModelCard], names: Sequence[str]) -> str:
    if not names:
        return "the reference alone"
    return ", ".join(f"{name} {listed_bands(_sources(cards, name)[0].bands)}" for name in names)


def _given(offers: Sequence[Offer]) -> str:
    if not offers:
        return "nothing"
    return ", ".join(
        f"{SERIES if one.is_series else 'auxiliary'} <{one.name}> {listed_bands(one.bands)}" for one in offers
    )
