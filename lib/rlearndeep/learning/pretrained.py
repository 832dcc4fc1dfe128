"""Pre-training alone: from patches without labels to a model directory that a training begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.feeding import Part
from rlearndeep.learning.options import Settings, architecture_of, resolved
from rlearndeep.learning.pretraining import (
    FOLDER,
    Pretraining,
    done_of,
    gathered,
    outcome,
    outcome_text,
    pretrained,
    settled,
)
from rlearndeep.learning.report import write_pretraining_report
from rlearndeep.learning.resuming import as_one_run, mark_finished, record_of, run_folder
from rlearndeep.learning.sources import FUSION, Choice, model_source
from rlearndeep.learning.training import (
    adopted,
    backend_name,
    check_standardize,
    check_target,
    hidden_folder,
    joined_extent,
    spread_of,
    write_history,
    write_scores,
)
from rlearndeep.model import FEATURES, ModelCard, Network, write_card
from rlearndeep.patches import PatchDataset, replace_directory
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.classes import ClassTable


@dataclass(frozen=True)
class Alone:
    """Everything that is settled before an encoder learns without labels, and nothing else does.

    Attributes:
        pretraining: what it learns, and how.
        unit: of the labels that its architecture is for, ``cell`` or ``patch``.
    """

    pretraining: Pretraining
    unit: str

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know."""
        return self.pretraining.remarks

    def text(self) -> str:
        """What is going to be learned, in a line."""
        return self.pretraining.text()

    def summary(self) -> dict[str, Any]:
        """The settings and the numbers of patches, as ``format=json`` prints them with ``-c``."""
        return self.pretraining.summary()


def prepare_alone(settings: Settings, backend: ModuleType) -> Alone:
    """Check everything and make every choice; nothing is trained.

    Raises:
        DeepLearningError: the patches or the settings do not allow pre-training.
    """
    _check_meaning(settings)
    first = PatchDataset.open(settings.unlabelled[0]).manifest
    shape = first.reference.shape
    given = adopted(adopted(settings, "cell"), "patch")
    # No label says what is wanted; the encoder of a segmentation network fits a classifier, too.
    architecture = architecture_of(given, "cell", shape)
    answer = backend.answers(architecture)
    unit = answer if answer != "either" else "cell"
    choice = Choice.of(first, architecture, given.sources, given.resampling)
    given = replace(given, sources=choice.names, resampling=choice.resampling)
    sites = gathered(given.unlabelled, first, choice)
    check_standardize(sites, given.standardize)
    chosen = resolved(given, unit, shape, sum(len(site.dataset) for site in sites.sites))
    network = Network(architecture, len(sites.bands), 1, {**(chosen.network or {}), **sites.network})
    target = backend.Target(network, sites.bands, ClassTable(()), FEATURES, sites.branch_bands)
    initial = backend.initial_weights(chosen.weights, target)
    normalization = Normalization.from_statistics(chosen.standardize, sites.statistics)
    part = Part(sites, normalization, (), normalizations=sites.normalizations(chosen.standardize))
    return Alone(settled(given, chosen, network, part, backend, spread_of(sites, chosen), initial), unit)


def _check_meaning(settings: Settings) -> None:
    """Refuse what only a training with labels could use."""
    given = {
        "loss": settings.loss,
        "class_weights": settings.class_weights if settings.class_weights != "none" else "",
        "epochs": settings.epochs,
        "patience": settings.patience,
        "augment": settings.augment,
        "freeze": settings.freeze if settings.freeze != "none" else "",
        "encoder_rate": settings.encoder_rate,
    }
    for name in (name for name, value in given.items() if value not in ("", None)):
        raise DeepLearningError(
            f"The option {name}= is for training with labels; got no patches=. Leave it out (pre-training has "
            "pretrain_epochs=, and changes of its own), or give patches=."
        )


def pretrain_alone(
    plan: Alone,
    target: Path,
    backend: ModuleType,
    *,
    command: str = "",
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, total, message: None,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Pre-train, and write a model directory with the encoder; arguments and errors as of ``training.train``.

    Returns:
        The content of ``scores.json``.
    """
    check_target(target, overwrite, resume)
    folder = run_folder(target)
    record = record_of(plan.pretraining.settings, plan.pretraining.datasets)
    record["settings"]["backend"] = backend_name(backend)
    return as_one_run(
        target,
        record,
        lambda: done_of(backend, folder),
        lambda: _written(plan, target, folder, backend, command, progress, warn),
        command=command,
        overwrite=overwrite,
        resume=resume,
        warn=warn,
    )


def alone_text(scores: dict[str, Any]) -> str:
    """What came of it, in words."""
    return outcome_text(scores["pretraining"])


def _written(
    plan: Alone,
    target: Path,
    run: Path,
    backend: ModuleType,
    command: str,
    progress: Callable[[int, int, str], None],
    warn: Callable[[str], None],
) -> dict[str, Any]:
    with hidden_folder(run, target) as folder:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        found = pretrained(plan.pretraining, run / FOLDER, backend, progress, warn)
        found.save(folder / backend.FILE)
        scores = {"pretraining": {**outcome(found), "linear_probe": None}}
        card = _card(plan, found, backend, command, started, scores)
        write_history(folder / "pretraining.csv", found.history)
        write_scores(folder, scores)
        write_pretraining_report(folder / "report.html", target.name, card, found.history)
        write_card(folder, card, target.name)
        mark_finished(run, folder, None)
        replace_directory(folder, target)
    return scores


def _card(
    plan: Alone, found: Any, backend: ModuleType, command: str, started: str, scores: dict[str, Any]
) -> ModelCard:
    own = plan.pretraining
    sites, manifests = own.training.sites, [dataset.manifest for dataset in own.datasets]
    normalizations = own.training.normalizations
    return ModelCard(
        backend=backend_name(backend),
        weights=backend.FILE,
        network=replace(own.network, classes=0),
        unit=plan.unit,
        bands=sites.bands,
        normalization=own.training.normalization,
        classes=sites.classes,
        task=FEATURES,
        sources=tuple(model_source(source, normalizations.get(source.source.name)) for source in sites.further),
        patch=own.shape,
        resolution=manifests[0].reference.resolution,
        stride=1 if own.network.architecture == FUSION else backend.stride(own.network),
        reach=None,
        projection=manifests[0].projection,
        extent=joined_extent([manifest.extent for manifest in manifests]),
        training={
            "settings": own.settings.to_json(),
            "versions": backend.versions(),
            "patches": [],
            "unlabelled": [str(dataset.path.absolute()) for dataset in own.datasets],
            "parts": {"training": len(own.training), "held_out": len(own.held_out)},
            "sampling": [manifest.report for manifest in manifests],
            "sampling_commands": [manifest.command for manifest in manifests],
            "command": command,
            "device": found.device,
            "pretrained": own.initial is not None,
            "weights": {"origin": own.initial.origin, "licence": own.initial.licence} if own.initial else None,
            "remarks": list(own.remarks),
            "started": started,
        },
        scores=scores,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
