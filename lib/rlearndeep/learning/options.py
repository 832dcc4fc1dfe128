"""How to train: the values of the command's options, checked, and the defaults that follow from the patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rlearndeep.errors import DeepLearningError
from rlearndeep.scene.bands import STANDARDIZE
from rlearndeep.scene.numbers import read_number
from rlearndeep.scene.resampling import METHODS

# Losses of each task; the first one is the default.
LOSSES = {
    "class": ("cross_entropy", "focal", "dice", "jaccard"),
    "presence": ("bce", "focal", "dice", "jaccard"),
    "value": ("mse", "mae", "huber"),
}
PRETRAINING = ("none", "simclr")
OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULERS = ("none", "step", "cosine", "plateau", "onecycle")
AUGMENTATIONS = ("flip", "rotate", "crop", "jitter", "blur", "noise", "erase")

# The others move cells of a patch, or compare them.
_FOR_SINGLE_CELLS = ("jitter", "noise")

# Options that become settings of the same name.
_TEXTS = (
    *("architecture", "resampling", "standardize", "loss", "optimizer", "scheduler", "precision", "device"),
    *("tensorboard", "weights", "freeze", "pretrain"),
)
_WHOLE_NUMBERS = ("step", "epochs", "batch_size", "patience", "seed", "nprocs", "devices", "nodes", "pretrain_epochs")
_NUMBERS = ("weight_decay", "momentum", "gamma", "encoder_rate", "temperature")
_LISTS = ("sources", "augment", "unlabelled")

# These multiply the learning rate by gamma, after so many epochs.
_STEPPED = ("step", "plateau")

# Transformers diverge at the learning rate that suits convolutions.
_TRANSFORMERS = ("swin", "vit", "deit", "beit", "maxvit", "mit_b", "segformer")

# What an encoder has learned elsewhere is worth keeping; what follows it begins anew.
_ENCODER_RATE = 0.1

# A U-Net and its relatives halve a patch this often; fewer times where less than two cells would be left, since a
# bottleneck of one cell sees nothing but the mean of the patch.
_STEPWISE = ("unet", "unetplusplus", "manet", "linknet", "fusion")
_DEEPEST, _SHALLOWEST = 5, 3

# A residual network has halved larger ones to a cell when half of its layers are still to come; of smaller patches a
# small network learns as much in a tenth of the time (benchmarks/defaults.md).
_SMALL_PATCH = 12

_CELLS_PER_BATCH = 32 * 64 * 64
_SINGLE_CELLS_PER_BATCH = 256
_FEWEST_STEPS = 24
_FEWEST_STEPS_OF_CELLS = 128


@dataclass(frozen=True)
class Settings:
    """How to train; None, or an empty text, leaves the choice to :func:`resolved`.

    Attributes:
        architecture: name of the network.
        network: options of the network, e.g. ``{"encoder": "resnet18"}``.
        sources: names of the sources of the patches that the network looks at; none for all that it can look at.
        resampling: how sources of another resolution are brought into the cells of the reference, where they are.
        standardize: how raw values become network input.
        loss: a sum of names with ``+``; empty: cross_entropy for classes, bce for presence, mse for values.
        class_weights: ``none``, ``balanced``, or a number per class, in the order of the categories.
        optimizer: adamw, adam or sgd.
        learning_rate: of the optimizer, at its highest; ``auto`` finds one by a range test.
        weight_decay: of the optimizer.
        momentum: of sgd.
        scheduler: none, step, cosine, plateau or onecycle.
        step: epochs between two steps, or without progress on a plateau.
        gamma: factor of the learning rate at a step.
        epochs: at most.
        batch_size: patches, of each device.
        patience: epochs without a better validation score after which training ends; 0 is never.
        augment: steps of augmentation.
        precision: auto, 32, bf16 or 16.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: of everything random.
        nprocs: threads; 0 for all cores, but one for single cells.
        devices: number of devices, or of processes on a CPU, of each machine.
        nodes: number of machines.
        tensorboard: directory for TensorBoard, or empty.
        weights: to begin with: none, imagenet, a file, or a model directory.
        freeze: none, encoder, or for how many epochs the encoder does not learn.
        encoder_rate: factor of the learning rate for an encoder that begins with weights.
        pretrain: what the encoder learns first, without labels: none or simclr.
        unlabelled: patch directories that it learns this from.
        pretrain_epochs: at most.
        temperature: of the contrastive loss.
    """

    architecture: str = ""
    network: Mapping[str, Any] | None = None
    sources: tuple[str, ...] = ()
    resampling: str = ""
    standardize: str = "band"
    loss: str = ""
    class_weights: str | tuple[float, ...] = "none"
    optimizer: str = "adamw"
    learning_rate: float | str | None = None
    weight_decay: float | None = None
    momentum: float | None = None
    scheduler: str = "onecycle"
    step: int | None = None
    gamma: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    patience: int | None = None
    augment: tuple[str, ...] | None = None
    precision: str = "auto"
    device: str = "auto"
    seed: int = 1
    nprocs: int = 0
    devices: int = 1
    nodes: int = 1
    tensorboard: str = ""
    weights: str = "none"
    freeze: str = "none"
    encoder_rate: float | None = None
    pretrain: str = "none"
    unlabelled: tuple[str, ...] = ()
    pretrain_epochs: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        _one_of("standardize", self.standardize, STANDARDIZE)
        _one_of("resampling", self.resampling, ("", *METHODS))
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("scheduler", self.scheduler, SCHEDULERS)
        for name in self.loss.split("+") if self.loss else ():
            _one_of("loss", name, tuple(dict.fromkeys(name for names in LOSSES.values() for name in names)))
        if len(set(self.loss.split("+"))) != self.loss.count("+") + 1:
            raise DeepLearningError(f"A sum of losses names each once; got loss={self.loss}. Leave out the repetition.")
        for name in self.augment or ():
            _one_of("augment", name, (*AUGMENTATIONS, "none"))
        for name, smallest in (("epochs", 1), ("batch_size", 1), ("patience", 0), ("step", 1), ("nprocs", 0)):
            _at_least(name, getattr(self, name), smallest)
        for name, smallest in (("seed", 0), ("devices", 1), ("nodes", 1)):
            _at_least(name, getattr(self, name), smallest)
        if not isinstance(self.learning_rate, str):
            _within("learning_rate", self.learning_rate, 1e-12, 1000.0)
        elif self.learning_rate != "auto":
            raise DeepLearningError(
                f"The option learning_rate= must be a number or auto; got '{self.learning_rate}'. Choose one of them."
            )
        _within("weight_decay", self.weight_decay, 0.0, 1000.0)
        _within("encoder_rate", self.encoder_rate, 1e-6, 1.0)
        self._check_freeze()
        self._check_pretraining()
        _within("momentum", self.momentum, 0.0, 1.0)
        _within("gamma", self.gamma, 1e-12, 1.0)

    def _check_freeze(self) -> None:
        epochs = self.freeze.isascii() and self.freeze.isdigit() and int(self.freeze) > 0
        if self.freeze not in ("none", "encoder") and not epochs:
            raise DeepLearningError(
                f"The option freeze= must be none, encoder, or a number of epochs; got '{self.freeze}'. Choose one."
            )
        given = "freeze" if self.freeze != "none" else "encoder_rate" if self.encoder_rate not in (None, 1.0) else ""
        if given and self.weights == "none" and self.pretrain == "none":
            raise DeepLearningError(
                f"The option {given}= needs an encoder that has learned something; got weights=none. Give weights=, "
                f"or leave {given}= out."
            )

    def _check_pretraining(self) -> None:
        _one_of("pretrain", self.pretrain, PRETRAINING)
        _at_least("pretrain_epochs", self.pretrain_epochs, 1)
        _within("temperature", self.temperature, 0.01, 10.0)
        if self.pretrain != "none" and not self.unlabelled:
            raise DeepLearningError(
                f"Pre-training needs patches to learn from; got pretrain={self.pretrain} and no unlabelled=. Give "
                "patch directories with unlabelled=; v.sample.patches with neither input= nor raster= makes them."
            )
        for name in ("unlabelled", "pretrain_epochs", "temperature"):
            if self.pretrain == "none" and getattr(self, name):
                raise DeepLearningError(
                    f"The option {name}= is for pre-training; got pretrain=none. Give pretrain=simclr, or leave "
                    f"{name}= out."
                )

    def to_json(self) -> dict[str, Any]:
        """Plain values for the model."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def from_options(options: Mapping[str, str]) -> Settings:
    """Settings of the command's option texts; options that are empty or absent get their defaults.

    Raises:
        DeepLearningError: a value is no number, or not allowed.
    """
    given = {name: text for name, text in options.items() if text}
    if given.get("batch_size") == "auto":
        del given["batch_size"]
    values: dict[str, Any] = {name: given[name] for name in _TEXTS if name in given}
    values |= {name: read_number(name, given[name], int) for name in _WHOLE_NUMBERS if name in given}
    values |= {name: read_number(name, given[name], float) for name in _NUMBERS if name in given}
    values |= {name: tuple(given[name].split(",")) for name in _LISTS if name in given}
    if "learning_rate" in given:
        rate = given["learning_rate"]
        values["learning_rate"] = rate if rate == "auto" else read_number("learning_rate", rate, float)
    return Settings(**values, network=_network_of(given), class_weights=_class_weights(options.get("class_weights")))


def _network_of(given: Mapping[str, str]) -> dict[str, Any]:
    """The options of a network among those that were given."""
    network: dict[str, Any] = {"encoder": given["encoder"]} if "encoder" in given else {}
    if "dropout" in given:
        network["dropout"] = read_number("dropout", given["dropout"], float)
    for name in ("filters", "blocks"):
        if name in given:
            network[name] = read_number(name, given[name], int)
    for name in ("hidden", "kernel", "dilations"):
        if name in given:
            network[name] = [read_number(name, value, int) for value in given[name].split(",")]
    return network


def resolved(
    settings: Settings, unit: str, shape: tuple[int, int], training: int, task: str = "class", further: int = 0
) -> Settings:
    """Settings with every choice made.

    Args:
        settings: what the user chose.
        unit: of the label, ``cell`` or ``patch``.
        shape: rows and columns of a patch.
        training: number of training patches.
        task: what a label says, one of ``TASKS``.
        further: cells of further sources, of all dates, that the network gets with a patch.
    """
    single = shape == (1, 1)
    _refuse_unused(settings)
    architecture = architecture_of(settings, unit, shape)
    network = _network_options(settings.network or {}, architecture, unit, shape)
    settings = replace(settings, architecture=architecture, network=network)
    batch_size = settings.batch_size or _batch_size(shape, training, further)
    epochs = settings.epochs or _epochs(single, training, batch_size)
    return replace(
        settings,
        loss=_loss(settings.loss, task),
        learning_rate=settings.learning_rate or default_rate(settings),
        weight_decay=_default(settings.weight_decay, 0.01 if settings.optimizer == "adamw" else 0.0),
        momentum=_default(settings.momentum, 0.9),
        step=_default(settings.step, 10),
        gamma=_default(settings.gamma, 0.1),
        batch_size=batch_size,
        epochs=epochs,
        patience=_default(settings.patience, max(10, epochs // 3)),
        augment=_augment(settings.augment, single),
        encoder_rate=settings.encoder_rate
        or (1.0 if (settings.weights, settings.pretrain) == ("none", "none") else _ENCODER_RATE),
        # Batches of single cells are so small that threads would only wait for each other.
        nprocs=settings.nprocs or (1 if single else 0),
    )


def architecture_of(settings: Settings, unit: str, shape: tuple[int, int]) -> str:
    """The network that the user chose, or the one that suits the label and the patches."""
    if settings.architecture:
        return settings.architecture
    if unit == "cell" or shape == (1, 1):
        return "mlp" if shape == (1, 1) else "unet"
    begins = settings.weights != "none" or settings.pretrain != "none"
    return "resnet18" if begins or max(shape) > _SMALL_PATCH else "cnn"


def _refuse_unused(settings: Settings) -> None:
    """Refuse a setting that would change nothing beside the others."""
    no_sgd, no_steps = settings.optimizer != "sgd", settings.scheduler not in _STEPPED
    schedule = f"scheduler={settings.scheduler}", f"scheduler={' or '.join(_STEPPED)}"
    unused = {
        "momentum": (no_sgd, f"optimizer={settings.optimizer}", "optimizer=sgd"),
        "step": (no_steps, *schedule),
        "gamma": (no_steps, *schedule),
        "encoder_rate": (settings.weights == settings.pretrain == "none", "weights=none", "weights= or pretrain="),
    }
    for name, (idle, beside, way_out) in unused.items():
        if getattr(settings, name) is not None and idle:
            raise DeepLearningError(
                f"The option {name}= has no meaning with {beside}; got {name}={getattr(settings, name):g}. "
                f"Leave it out, or give {way_out}."
            )
    if settings.encoder_rate is not None and settings.freeze == "encoder":
        raise DeepLearningError(
            f"An encoder that is frozen has no rate; got freeze=encoder and encoder_rate={settings.encoder_rate:g}. "
            "Leave one of them out, or freeze the encoder for some epochs only."
        )


def _loss(given: str, task: str) -> str:
    allowed = LOSSES[task]
    foreign = [name for name in given.split("+") if name not in allowed] if given else []
    if foreign:
        labels = {"class": "classes", "presence": "the presence of classes", "value": "values"}[task]
        raise DeepLearningError(
            f"The loss must suit labels that are {labels}; '{foreign[0]}' does not. Choose one of "
            f"{', '.join(allowed)}, or a sum of them."
        )
    return given or allowed[0]


def _network_options(given: Mapping[str, Any], architecture: str, unit: str, shape: tuple[int, int]) -> dict[str, Any]:
    allowed = {
        "mlp": ("hidden", "dropout"),
        "cnn": ("filters", "blocks", "dropout"),
        "fcn_dilated": ("filters", "kernel", "blocks", "dilations"),
        "fusion": ("encoder", "filters", "blocks", "dropout"),
    }.get(architecture, ("dropout",) if unit == "patch" else ("encoder",))
    foreign = [name for name in given if name not in (*allowed, "depth")]
    if foreign:
        raise DeepLearningError(
            f"The option {foreign[0]}= has no meaning for architecture={architecture}; its options are "
            f"{', '.join(allowed)}. Leave it out or choose another architecture."
        )
    options = dict(given)
    if architecture in ("mlp", "fusion"):
        options["unit"] = unit
    if "encoder" in allowed:
        options.setdefault("encoder", "vit_small_patch16_224" if architecture == "dpt" else "resnet18")
        if architecture in _STEPWISE:
            options.setdefault("depth", _depth(options["encoder"], shape))
    if "encoder" in allowed or (unit == "patch" and architecture != "cnn"):
        options["size"] = list(shape)
    return options


def _depth(encoder: str, shape: tuple[int, int]) -> int:
    fewest = _SHALLOWEST + encoder.startswith("mit_b")  # a mix transformer begins with a step of four
    return max(fewest, min(_DEEPEST, min(shape).bit_length() - 2))


def _batch_size(shape: tuple[int, int], training: int, further: int) -> int:
    """About 131,000 cells of all sources, but at least 24 steps an epoch; up to 256 single cells, and 128 steps."""
    if shape == (1, 1):
        return max(32, min(_SINGLE_CELLS_PER_BATCH, training // _FEWEST_STEPS_OF_CELLS))
    fitting = min(32, _CELLS_PER_BATCH // (shape[0] * shape[1] + further))
    return max(4, min(fitting, training // _FEWEST_STEPS))


def _epochs(single: bool, training: int, batch_size: int) -> int:
    """So many that a small set is seen often enough and a large one not for ever."""
    steps = math.ceil(max(1, training) / batch_size)
    wanted, fewest, most = (4000, 20, 200) if single else (1000, 15, 60)
    return min(most, max(fewest, math.ceil(wanted / steps)))


def default_rate(settings: Settings) -> float:
    """The learning rate that suits the optimizer and the network, which is settled."""
    if settings.optimizer == "sgd":
        return 0.01
    names = (settings.architecture, str((settings.network or {}).get("encoder", "")))
    if any(part in name for name in names for part in _TRANSFORMERS):
        return 0.0003
    return 0.001


def _augment(given: tuple[str, ...] | None, single: bool) -> tuple[str, ...]:
    if given is None:
        return () if single else ("flip", "rotate")
    if "none" in given and len(given) > 1:
        raise DeepLearningError(f"augment=none stands alone; got {','.join(given)}. Leave out none or the others.")
    idle = [name for name in given if single and name not in (*_FOR_SINGLE_CELLS, "none")]
    if idle:
        raise DeepLearningError(
            f"Single cells can be changed by {' and '.join(_FOR_SINGLE_CELLS)} only; got augment={','.join(given)}. "
            f"Leave out {', '.join(idle)}."
        )
    return () if "none" in given else given


def _default(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _class_weights(text: str | None) -> str | tuple[float, ...]:
    if not text or text in ("none", "balanced"):
        return text or "none"
    weights = tuple(read_number("class_weights", value, float) for value in text.split(","))
    if any(not math.isfinite(value) or value < 0 for value in weights) or not any(weights):
        raise DeepLearningError(
            f"Class weights must be none, balanced, or numbers of at least 0; got '{text}'. Choose other weights."
        )
    return weights


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise DeepLearningError(
            f"The option {name}= must be one of {', '.join(allowed)}; got '{value}'. Choose one of them."
        )


def _at_least(name: str, value: int | None, smallest: int) -> None:
    if value is not None and value < smallest:
        raise DeepLearningError(f"The option {name}= must be at least {smallest}; got {value}. Choose a larger number.")


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise DeepLearningError(
            f"The option {name}= must be a number from {low:g} to {high:g}; got {value}. Choose another number."
        )
