"""Which sources of the patches a network looks at, and what it gets of each further one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.model import BRANCH, ModelCard, ModelSource
from rlearndeep.patches import Manifest, PatchDataset, Source, batches
from rlearndeep.scene.bands import Band, Normalization, listed_bands, match_bands
from rlearndeep.scene.geometry import Windows
from rlearndeep.scene.inputs import Further, days_of, ground_box
from rlearndeep.scene.resampling import METHODS, positions, resampled

REFERENCE = "reference"
SERIES = "series"
FUSION = "fusion"

_PATCHES_AT_ONCE = 1024


@dataclass(frozen=True)
class Choice:
    """The sources that a network looks at.

    Attributes:
        names: in the order of the patch directory.
        uses: of each further source by its name: ``BRANCH``, or how it is resampled into the cells of the reference.
    """

    names: tuple[str, ...]
    uses: Mapping[str, str]

    @property
    def has_reference(self) -> bool:
        """Whether the network looks at the reference, and not only at its grid."""
        return REFERENCE in self.names

    @property
    def resampling(self) -> str:
        """How sources are resampled; empty where none is."""
        return next((use for use in self.uses.values() if use != BRANCH), "")

    @classmethod
    def of_model(cls, card: ModelCard) -> Choice:
        """The sources that a model looks at."""
        uses = {source.name: source.use for source in card.sources}
        names = (REFERENCE,) if card.network.options.get("reference", True) else ()
        return cls((*names, *uses), uses)

    @classmethod
    def of(cls, manifest: Manifest, architecture: str, names: Sequence[str], resampling: str) -> Choice:
        """Settle the sources.

        Args:
            manifest: of the patches.
            architecture: of the network; ``fusion`` has branches, all others get a stack.
            names: of sources; none for all that the network can look at.
            resampling: of ``METHODS``; empty for the first.

        Raises:
            DeepLearningError: the patches do not have a source, or the network cannot look at it.
        """
        chosen = _named(manifest, names) or _suitable(manifest, architecture)
        further = tuple(name for name in chosen if name != REFERENCE)
        if architecture == FUSION:
            _check_branches(manifest, further)
        else:
            _check_stack(chosen, architecture)
        stacks = bool(further) and architecture != FUSION
        if resampling and not stacks:
            raise DeepLearningError(
                f"The option resampling= says how sources are brought into the cells of the reference; with "
                f"architecture={architecture} and the source(s) {', '.join(chosen)} none is. Leave it out."
            )
        use = (resampling or METHODS[0]) if stacks else BRANCH
        return cls(chosen, dict.fromkeys(further, use))

    def network(self, manifest: Manifest) -> dict[str, object]:
        """What a fusion network has to know of the sources; nothing for others."""
        if BRANCH not in self.uses.values():
            return {}
        sources = [
            {"name": source.name, "bands": len(source.bands), "series": bool(source.dates)}
            for source in manifest.sources
            if source.name in self.uses
        ]
        return {"reference": self.has_reference, "sources": sources}


REFERENCE_ALONE = Choice((REFERENCE,), {})


def _named(manifest: Manifest, names: Sequence[str]) -> tuple[str, ...]:
    there = [source.name for source in manifest.sources]
    foreign = [name for name in names if name not in there]
    if foreign:
        raise DeepLearningError(
            f"The option sources= names sources of the patches, which have {', '.join(there)}; got '{foreign[0]}'. "
            "Choose among them, or sample with auxiliary= or series=."
        )
    return tuple(name for name in there if name in names)


def _suitable(manifest: Manifest, architecture: str) -> tuple[str, ...]:
    return tuple(source.name for source in manifest.sources if architecture == FUSION or not source.dates)


def _check_branches(manifest: Manifest, further: Sequence[str]) -> None:
    if not further:
        there = ", ".join(source.name for source in manifest.sources)
        raise DeepLearningError(
            f"architecture=fusion needs a source beside the reference; the patches have {there}. Name a further one in "
            "sources=, sample with auxiliary= or series=, or choose e.g. architecture=unet."
        )


def _check_stack(chosen: Sequence[str], architecture: str) -> None:
    if SERIES in chosen:
        raise DeepLearningError(
            f"A series needs a network that knows dates; '{architecture}' does not. Choose architecture=fusion, or "
            "leave series out of sources=."
        )
    if REFERENCE not in chosen:
        raise DeepLearningError(
            f"Further sources are stacked upon the reference; sources= has {', '.join(chosen)}. Add reference, or "
            "choose architecture=fusion."
        )


@dataclass(frozen=True)
class SiteSource:
    """A further source of one patch directory.

    Attributes:
        source: its entry in the manifest of this directory, with its own grid.
        use: of :class:`Choice`.
        bands: where the common bands stand in it.
        images, valid: memory maps.
        centres: east and north of what each patch shows, around which its window of the source lies.
    """

    source: Source
    use: str
    bands: tuple[int, ...]
    images: NDArray
    valid: NDArray[np.bool_]
    centres: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def of(cls, dataset: PatchDataset, first: Source, use: str) -> SiteSource:
        """Open the source that ``first``, of the first directory, has the name of.

        Raises:
            DeepLearningError: this directory has no such source, or another kind of it.
        """
        source = next((source for source in dataset.manifest.sources if source.name == first.name), None)
        if source is None or source.region is None:
            raise DeepLearningError(
                f"Patch directories must have the same sources; '{dataset.path}' has no {first.name}. Sample it with "
                "the same options, or leave the source out with sources=."
            )
        for what, mine, other in (
            ("patch size", first.shape, source.shape),
            ("resolution", _rounded(first.resolution), _rounded(source.resolution)),
            ("number of dates", len(first.dates), len(source.dates)),
        ):
            if mine != other:
                raise DeepLearningError(
                    f"Patch directories must have the same {what} of a source; {first.name} of '{dataset.path}' has "
                    f"{other}, that of the first directory {mine}. Sample them with the same options, or leave the "
                    "source out with sources=."
                )
        bands = positions_of(first.bands, dataset, source)
        centres = np.array(dataset.index["east"]), np.array(dataset.index["north"])
        return cls(source, use, bands, dataset.images(source.name), dataset.valid(source.name), centres)

    def stacked(self, places: NDArray[np.int64], reference: Windows) -> tuple[NDArray, NDArray[np.bool_]]:
        """Values (N, bands, rows, cols) and validity (N, rows, cols) in the cells of windows of the reference."""
        cells = positions(self._windows(places), reference)
        return resampled(self._values(places), self.valid[places], *cells, self.use)

    def known(self, places: NDArray[np.int64], reference: Windows) -> NDArray[np.bool_]:
        """The validity that :meth:`stacked` gives."""
        valid = self.valid[places]
        cells = positions(self._windows(places), reference)
        return resampled(valid[:, None], valid, *cells, METHODS[0])[1]

    def branch(self, places: NDArray[np.int64], reference: Windows) -> Further:
        """Values as they are stored, validity, place on the ground, and days."""
        days = np.tile(days_of(self.source.dates), (len(places), 1))
        box = ground_box(self._windows(places), reference)
        return Further(self._values(places), self.valid[places], box, days)

    def absent(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each patch in which the source has no valid cell."""
        found = [~self.valid[some].reshape(len(some), -1).any(axis=1) for some in batches(places, _PATCHES_AT_ONCE)]
        return np.concatenate(found) if found else np.empty(0, dtype=bool)

    def _values(self, places: NDArray[np.int64]) -> NDArray:
        values = self.images[places]
        if self.bands == tuple(range(len(self.source.bands))):
            return values
        return np.ascontiguousarray(np.take(values, self.bands, axis=-3))

    def _windows(self, places: NDArray[np.int64]) -> Windows:
        """Windows of the source as they were sampled: around what patches show, which may be padded."""
        region = self.source.region
        if region is None:
            raise ValueError("a further source has a grid of its own")
        east, north = self.centres
        return Windows.around(east[places], north[places], region, self.source.shape)


def positions_of(wanted: Sequence[Band], dataset: PatchDataset, source: Source) -> tuple[int, ...]:
    """Where bands stand in a source of a patch directory.

    Raises:
        DeepLearningError: one of them is missing; both sides are shown.
    """
    try:
        return tuple(match_bands(wanted, source.bands))
    except DeepLearningError as error:
        raise DeepLearningError(
            f"Patch directories must have the same bands; {source.name} of '{dataset.path}' has "
            f"{listed_bands(source.bands)}, that of the first directory {listed_bands(wanted)}. Sample groups whose "
            "maps have the same semantic labels (r.semantic.label) or names."
        ) from error


def stack(
    images: NDArray, valid: NDArray[np.bool_], others: Sequence[tuple[NDArray, NDArray[np.bool_]]]
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Bands (N, bands, rows, cols) behind each other; a cell is valid (N, rows, cols) where all of them are."""
    dtype = np.result_type(images, *(values for values, _ in others))
    # Network input is float32 in any case; float64 would only double what goes to the device.
    dtype = np.dtype(np.float32) if dtype == np.float64 else dtype
    values = np.concatenate([images, *(values for values, _ in others)], axis=1, dtype=dtype, casting="same_kind")
    for _, known in others:
        valid = valid & known
    return values, valid


def model_source(further: SiteSource, normalization: Normalization | None) -> ModelSource:
    """What a model keeps of a source of its first patch directory; the normalisation is that of a branch."""
    source = further.source
    kept = normalization or Normalization("none")
    return ModelSource(source.name, source.bands, source.shape, source.resolution, further.use, kept, source.dates)


def _rounded(resolution: tuple[float, float]) -> tuple[float, ...]:
    """Resolutions as they are compared and shown: what rounding makes of a grid's edges is no difference."""
    return tuple(float(f"{side:.6g}") for side in resolution)
