"""Learning without labels before learning with them: which patches, for how long, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part, Raw, Site, Sites
from rlearndeep.learning.ground import lies_over
from rlearndeep.learning.options import Settings, default_rate
from rlearndeep.learning.progress import time_left
from rlearndeep.learning.resuming import Done
from rlearndeep.learning.sources import Choice, SiteSource, positions_of
from rlearndeep.learning.tasks import Measure
from rlearndeep.model import Network
from rlearndeep.patches import Manifest, PatchDataset, check_distinct
from rlearndeep.scene.classes import ClassTable

FOLDER = "pretraining"
"""Where the checkpoint of pre-training stands, in the hidden directory of a run."""

TEMPERATURE = 0.2
"""Between 0.1, the best of Chen et al. (2020, ICML) for ImageNet, and 0.5, their best for the small CIFAR-10."""

LOSS = Measure("loss", "loss", -1, float)
"""What chooses the best epoch: the contrastive loss of patches that were held out."""

_FEWEST = 32
_HELD_OUT, _FEWEST_HELD_OUT, _MOST_HELD_OUT = 0.1, 8, 512
_SMALLEST_BATCH, _LARGEST_BATCH, _FEWEST_STEPS = 8, 128, 8
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 2000, 20, 100


@dataclass(frozen=True)
class _Numbered(Site):
    """A patch directory whose patches have a number in the place of a label; ``first`` is that of its first patch."""

    first: int = 0

    def read(self, positions: NDArray[np.int64]) -> Raw:
        values, valid, _ = super().read(positions)
        return values, valid, positions + self.first


class Places(Part):
    """Patches without labels; their numbers stand in the place of labels."""

    @property
    def unlabelled(self) -> float:
        """No patch has this number."""
        return -1


@dataclass(frozen=True)
class Pretraining:
    """Everything that is settled before pre-training begins.

    Attributes:
        datasets: the patch directories.
        settings: every choice made, for pre-training.
        network: whose encoder learns.
        training: patches to learn from.
        held_out: others, whose loss chooses the best epoch.
        spread: standard deviation of the network's input per band.
        initial: weights to begin with, of the back-end's ``initial_weights``; None for random ones.
        remarks: what the user should know.
    """

    datasets: tuple[PatchDataset, ...]
    settings: Settings
    network: Network
    training: Places
    held_out: Places
    spread: NDArray[np.float64]
    initial: Any = None
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a patch."""
        return self.datasets[0].manifest.reference.shape

    def text(self) -> str:
        """What is going to be learned without labels, in a line."""
        settings = self.settings
        return (
            f"Pre-training ({settings.pretrain}) of {self.network.architecture} on {len(self.training)} patches of "
            f"{self.shape[0]} x {self.shape[1]} cells without labels ({len(self.held_out)} held out); at most "
            f"{settings.epochs} epochs of {self.training.steps(int(settings.batch_size or 1))} batches, temperature "
            f"{settings.temperature:g}."
        )

    def summary(self) -> dict[str, Any]:
        """The settings and the numbers of patches, as ``format=json`` prints them with ``-c``."""
        return {
            "settings": self.settings.to_json(),
            "patches": len(self.training),
            "held_out": len(self.held_out),
            "remarks": list(self.remarks),
        }


def settled(
    given: Settings,
    chosen: Settings,
    network: Network,
    part: Part,
    backend: ModuleType,
    spread: NDArray[np.float64],
    initial: Any,
) -> Pretraining:
    """Check everything and make every choice; nothing is trained.

    Args:
        given: what the user chose.
        chosen: the same with every choice made, for training.
        network: whose encoder learns.
        part: the patches of :func:`gathered`, normalised as those with labels are; its positions do not matter.
        backend: the room that knows the framework.
        spread: standard deviation of the network's input per band.
        initial: weights to begin with, or None.

    Raises:
        DeepLearningError: the patches or the settings do not allow it.
    """
    training, held_out = _divided(part, given.seed)
    datasets = tuple(site.dataset for site in part.sites.sites)
    settings = _settings(given, chosen, len(training))
    backend.check_pretraining(network, settings, part.sites.manifest.reference.shape)
    return Pretraining(datasets, settings, network, training, held_out, spread, initial, ())


def gathered(paths: Sequence[str], like: Manifest, choice: Choice) -> Sites:
    """Patch directories of any labels or none, with bands in the order of ``like``.

    Args:
        paths: of the directories.
        like: of patches whose bands, and sources, they must have.
        choice: the sources that the network looks at.

    Raises:
        DeepLearningError: one of them is none, their patches differ in size, or bands or sources are missing.
    """
    datasets = [PatchDataset.open(path) for path in paths]
    check_distinct(datasets)
    for other in datasets[1:]:
        shapes = [str(dataset.manifest.reference.shape) for dataset in (datasets[0], other)]
        if shapes[0] != shapes[1]:
            raise DeepLearningError(
                "Patch directories of unlabelled= must have the same patch size; "
                f"'{datasets[0].path}' has {shapes[0]}, '{other.path}' has {shapes[1]}. Sample them with the same "
                "size=."
            )
    wanted = [source for source in like.sources[1:] if source.name in choice.uses]
    sites: list[Site] = []
    for dataset in datasets:
        source = dataset.manifest.reference
        bands = positions_of(like.reference.bands, dataset, source)
        further = tuple(SiteSource.of(dataset, other, choice.uses[other.name]) for other in wanted)
        images, valid = dataset.images(source.name), dataset.valid(source.name)
        first = sum(len(site.dataset) for site in sites)
        sites.append(_Numbered(dataset, images, valid, bands, further, choice.has_reference, first))
    return Sites(tuple(sites), ClassTable(()), choice)


def _divided(part: Part, seed: int) -> tuple[Places, Places]:
    """Patches to learn from, and those held out: a tenth, at random; none of a validation or test part."""
    found = [site.dataset.positions("training") for site in part.sites.sites]
    found = [positions[site.useful(positions)] for site, positions in zip(part.sites.sites, found, strict=True)]
    count = sum(map(len, found))
    if count < _FEWEST:
        names = ", ".join(f"'{site.dataset.path}'" for site in part.sites.sites)
        raise DeepLearningError(
            f"Pre-training needs at least {_FEWEST} patches to tell apart; {names} has {count} in its training part. "
            "Sample more."
        )
    held = np.zeros(count, dtype=bool)
    number = min(_MOST_HELD_OUT, max(_FEWEST_HELD_OUT, round(_HELD_OUT * count)))
    held[np.random.default_rng(seed).permutation(count)[:number]] = True
    marks = np.split(held, np.cumsum([len(positions) for positions in found])[:-1])
    pairs = list(zip(found, marks, strict=True))
    parts = ([positions[~mine] for positions, mine in pairs], [positions[mine] for positions, mine in pairs])
    training, held_out = (
        Places(part.sites, part.normalization, tuple(positions), normalizations=part.normalizations)
        for positions in parts
    )
    return training, held_out


def _settings(given: Settings, chosen: Settings, patches: int) -> Settings:
    """How to pre-train: as training is to be done, but for the length, and the batch, which wants to be large."""
    batch_size = given.batch_size or max(_SMALLEST_BATCH, min(_LARGEST_BATCH, patches // _FEWEST_STEPS))
    wanted = math.ceil(_STEPS / math.ceil(patches / batch_size))
    epochs = given.pretrain_epochs or min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, wanted))
    searched = chosen.learning_rate == "auto"
    return replace(
        chosen,
        batch_size=batch_size,
        epochs=epochs,
        patience=max(10, epochs // 3),
        learning_rate=default_rate(chosen) if searched else chosen.learning_rate,
        temperature=given.temperature or TEMPERATURE,
        freeze="none",
        encoder_rate=1.0,
        tensorboard=str(Path(given.tensorboard) / FOLDER) if given.tensorboard else "",
    )


def pretrained(
    plan: Pretraining,
    folder: Path,
    backend: ModuleType,
    progress: Callable[[int, int, str], None],
    warn: Callable[[str], None],
) -> Any:
    """Pre-train, or go on from a checkpoint in ``folder``; what the back-end's ``pretrain`` returns."""
    folder.mkdir(exist_ok=True)
    epochs = int(plan.settings.epochs or 0)

    def report(row: dict[str, Any]) -> None:
        text = f"Pre-training, epoch {row['epoch']} of {epochs}: loss {row['training_loss']:.4f}"
        text += f", of patches held out {row['validation_loss']:.4f}"
        progress(row["epoch"], epochs, f"{text}, {time_left(row['epoch'], epochs, row['seconds'])}")

    return backend.pretrain(
        plan.network,
        plan.training,
        plan.held_out,
        plan.settings,
        size=plan.shape,
        spread=plan.spread,
        temperature=plan.settings.temperature,
        measure=LOSS,
        folder=folder,
        progress=report,
        warn=warn,
        initial=plan.initial,
    )


def of_ground(plan: Pretraining, labelled: Sequence[PatchDataset]) -> Iterator[str]:
    """A remark where patches without labels show the ground of the test part."""
    count = 0
    for dataset in plan.datasets:
        shown = np.zeros(len(dataset), dtype=bool)
        for other in labelled:
            if dataset.path != other.path:
                shown |= lies_over(dataset, other, other.positions("test"))
        count += int(shown[dataset.positions("training")].sum())
    if count:
        yield (
            f"{count} patches of unlabelled= lie over patches of the test part: the encoder knows their pixels, though "
            "not their labels, and the scores of the test part may be better than elsewhere."
        )


def outcome(found: Any) -> dict[str, Any]:
    """What pre-training came to, for ``scores.json``."""
    return {
        "epochs": len(found.history),
        "best_epoch": found.best_epoch,
        "loss": found.history[found.best_epoch - 1]["validation_loss"],
    }


def outcome_text(values: dict[str, Any]) -> str:
    """The same, in a sentence or two."""
    epochs = f"epoch {values['best_epoch']} of {values['epochs']}"
    text = f"Pre-training: {epochs}, loss {values['loss']:.4g} of patches held out"
    probe = values["linear_probe"]
    if probe is None:
        return text
    began = "random" if "random" in probe else "before"
    name = {"random": "with random weights", "before": "before"}[began]
    label = {"f1_macro": "F1 macro", "r2": "R2"}[probe["score"]]
    return (
        f"{text}\nLinear probe of the encoder, validation part: {label} {probe['pretrained']:.4g} with pre-training, "
        f"{probe[began]:.4g} {name}"
    )


def done_of(backend: ModuleType, folder: Path) -> Done:
    """How far the run of a folder has come."""
    if trained := backend.epochs_done(folder):
        return Done(trained)
    return Done(backend.epochs_done(folder / FOLDER), "Pre-training")
