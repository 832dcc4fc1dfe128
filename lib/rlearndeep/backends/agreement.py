"""Whether a model's card and its network speak of the same answers and sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlearndeep.backends.fusing import FUSION, Fusing
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import MANIFEST, ModelCard, Network


def check_card(
    directory: Path,
    card: ModelCard,
    answers: Callable[[str], str],
    largest: Callable[[Network], tuple[int, int] | None],
) -> None:
    """See that the network gives what the card says, and gets pictures and sources that it looks at.

    Args:
        directory: the model directory, for the message.
        card: what its ``model.json`` says.
        answers: of a back-end.
        largest: of the same back-end.

    Raises:
        DeepLearningError: they do not fit.
    """
    unit = _unit(card.network, answers)
    if card.unit != unit:
        raise _unfit(directory, f"rlearndeep:unit is {card.unit}, '{card.network.architecture}' answers per {unit}")
    limit = largest(card.network)
    if limit and (card.largest is None or max(card.largest) > max(limit)):
        raise _unfit(
            directory, f"rlearndeep:largest is {card.largest}, its network is made for {limit[0]} x {limit[1]} cells"
        )
    described = {source.name: (len(source.bands), bool(source.dates)) for source in card.branches}
    try:
        looked_at = _looked_at(card.network)
    except DeepLearningError as error:
        raise _unfit(directory, str(error)) from error
    if described != looked_at:
        raise _unfit(
            directory, f"rlearndeep:sources has {_listed(described)}, its network looks at {_listed(looked_at)}"
        )


def _unit(network: Network, answers: Callable[[str], str]) -> str:
    where = answers(network.architecture)
    return where if where != "either" else str(network.options.get("unit", "cell"))[:40]


def _looked_at(network: Network) -> dict[str, tuple[int, bool]]:
    """Number of bands, and whether there are dates, of each source with a branch."""
    if network.architecture != FUSION:
        return {}
    return {source.name: (source.bands, source.series) for source in Fusing.of(network).sources}


def _listed(sources: dict[str, tuple[int, bool]]) -> str:
    return ", ".join(f"{name} of {bands} bands" for name, (bands, _) in sources.items()) or "none with a branch"


def _unfit(directory: Path, found: str) -> DeepLearningError:
    return DeepLearningError(
        f"The parts of a model must fit each other; in '{Path(directory) / MANIFEST}' they do not ({found}). "
        "Train the model again with r.learn.deep.train."
    )
