"""Weights to begin with: of ImageNet, or of another model of this back-end; arrays are matched by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.backends import beginning
from rlearndeep.backends.beginning import Learning, Source, Target, are_the_same, is_enough, note_of, read_model
from rlearndeep.backends.fusing import FUSION, Fusing, branch_of, inputs_in_order, paired, under_names
from rlearndeep.backends.keras.blocks import DECODER, HEAD
from rlearndeep.backends.keras.encoders import application, known, published_name
from rlearndeep.backends.keras.engine import ENGINE, keras
from rlearndeep.backends.keras.fusion import FIRST_OF_BRANCH
from rlearndeep.backends.keras.module import Module, build
from rlearndeep.backends.keras.networks import SEGMENTATION
from rlearndeep.backends.keras.weights import load_module
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import MANIFEST, Network
from rlearndeep.scene.bands import Band
from rlearndeep.scene.spectrum import RGB, counterparts, shared_out

_WAY_OUT = "Choose another architecture= or encoder=, weights=none, or the directory of a model."

_KERNEL = f"{HEAD}/kernel"

Arrays = dict[str, NDArray]


class Initial(beginning.Initial[NDArray]):
    """What a network of Keras begins with: arrays by the names of layer and variable."""

    def load_into(self, model: Any) -> None:
        """Give a network, as ``build`` made it, these weights; what they do not cover stays as it is."""
        variables = _variables(model)
        for name, array in self.arrays.items():
            variables[name].assign(array)
        for name, (indices, values) in self.rows.items():
            changed = np.array(keras.ops.convert_to_numpy(variables[name]))
            changed[..., list(indices)] = values
            variables[name].assign(changed)


def initial_weights(choice: str, target: Target) -> Initial | None:
    """The weights of a ``weights=`` value: none, imagenet, or a model directory.

    Raises:
        DeepLearningError: no such directory, a file, not to be had without a download, or hardly anything fits.
    """
    if choice == "none":
        return None
    return fitted(_of_imagenet(target.network) if choice == "imagenet" else _of_model(Path(choice)), target)


def _of_imagenet(network: Network) -> Source[NDArray]:
    segments = network.architecture in (*SEGMENTATION, FUSION)
    encoder = known(str(network.options.get("encoder", "resnet18")) if segments else network.architecture)
    if published_name(encoder) is None:
        raise DeepLearningError(
            f"ImageNet weights must be published by Keras; there are none for '{encoder[:100]}'. {_WAY_OUT}"
        )
    try:
        model = application(encoder, keras.layers.Input((None, None, len(RGB))), "imagenet")
    except Exception as error:  # Keras wraps what urllib says in the root of all errors
        place = Path.home() / ".keras" / "models"
        raise DeepLearningError(
            f"The ImageNet weights of '{encoder}' must be in the cache or to be downloaded; neither worked "
            f"({' '.join(str(error).split())[:200]}). Fetch the file on a computer with internet and copy it to "
            f"'{place}', or choose weights=none."
        ) from error
    return Source(_arrays(model), "ImageNet", RGB)


def _of_model(directory: Path) -> Source[NDArray]:
    if not (directory / MANIFEST).is_file():
        raise DeepLearningError(
            f"With backend=keras, weights= must be none, imagenet or a model directory of r.learn.deep.train; "
            f"'{directory}' is not. Give one of them, or choose backend=torch for a weights file."
        )
    card = read_model(directory, "keras")
    module = load_module(card.network, directory / card.weights)
    branches = {branch.name: branch.bands for branch in card.branches}
    return Source(_arrays(module.model), f"'{directory}'", card.bands, card.classes, card.task, branches=branches)


def fitted(source: Source[NDArray], target: Target) -> Initial:
    """What of a source fits a network, with the first layer turned to its bands and the last to its classes.

    Raises:
        DeepLearningError: less than half of the encoder's arrays have a counterpart.
    """
    model = build(target.network).model
    expected = {name: tuple(variable.shape) for name, variable in _variables(model).items()}
    first = {next((name for name in expected if name.endswith("/kernel") and is_encoder(name)), "")}
    if source.branches and target.branches:
        first |= {name for name in expected if branch_of(name) and name.endswith(FIRST_OF_BRANCH)}
        source = _by_our_branches(source, target)
    arrays: Arrays = {}
    renewed: set[str] = set()
    rows = {}
    for name in expected.keys() & source.arrays.keys():
        array = source.arrays[name]
        if name.startswith(f"{HEAD}/"):
            rows.update(_rows(name, array, expected[name], source, target))
        elif name in first:
            branch = branch_of(name)
            offered, wanted = source.bands_of(branch), target.bands_of(branch)
            turned = _turned(array, expected[name], offered, wanted, 1 if branch else 0)
            if turned is not None:
                arrays[name] = turned
                renewed |= set() if are_the_same(wanted, offered) else {_layer_of(name)}
        elif array.shape == expected[name]:
            arrays[name] = array
    rows = rows if {name for name in expected if name.startswith(f"{HEAD}/")} <= rows.keys() else {}
    needed = _check(arrays, source, target, expected)
    anew = sum(name not in arrays for name in needed if model.get_layer(_layer_of(name)).trainable_weights)
    taken = f"{len({*arrays, *rows})} of {len(expected)} arrays"
    return Initial(arrays, frozenset(renewed), rows, source.origin, note_of(source, target, taken, renewed, rows, anew))


def _by_our_branches(source: Source[NDArray], target: Target) -> Source[NDArray]:
    """A source whose branches have the names and the order of those of the network that begin with them."""
    pairs = paired(target.branches, source.branches)
    arrays = under_names(source.arrays, pairs)
    recipe = Fusing.of(target.network)
    head = arrays.get(_KERNEL)
    if recipe.per_patch and head is not None and head.ndim == 2:
        order = inputs_in_order(pairs, target.branches, source.branches, len(head), 2 * recipe.widths[0])
        arrays[_KERNEL] = head[order]
    return replace(source, arrays=arrays, branches={mine: source.branches[theirs] for mine, theirs in pairs.items()})


def _turned(
    array: NDArray, shape: tuple[int, ...], offered: tuple[Band, ...], wanted: tuple[Band, ...], beside: int
) -> NDArray | None:
    """Filters (..., bands, outputs) of the first layer for other bands; None where the layer is another one.

    Behind the bands there are as many inputs as ``beside`` says that are none.
    """
    if (*array.shape[:-2], array.shape[-1]) != (*shape[:-2], shape[-1]) or array.shape[-2] != len(offered) + beside:
        return None
    filters = shared_out(array[..., : len(offered), :], counterparts(wanted, offered), axis=-2)
    return np.concatenate([filters, array[..., len(offered) :, :]], axis=-2)


def _rows(
    name: str, array: NDArray, shape: tuple[int, ...], source: Source[NDArray], target: Target
) -> dict[str, tuple[tuple[int, ...], NDArray]]:
    """What the last layer knows of classes that both sides have, by category and label; the value's one output."""
    if array.ndim != len(shape) or array.shape[:-1] != shape[:-1]:
        return {}
    pairs = source.shared_outputs(target, shape[-1], array.shape[-1])
    return {name: (tuple(index for index, _ in pairs), array[..., [row for _, row in pairs]])} if pairs else {}


def _check(
    arrays: Arrays, source: Source[NDArray], target: Target, expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    """Refuse weights that hardly fit; the names of the encoder's arrays."""
    needed = [name for name in expected if is_encoder(name)] or [name for name in expected if not name.startswith(HEAD)]
    fitting = [name for name in needed if name in arrays]
    if not is_enough(len(fitting), len(needed)):
        title = target.network.options.get("encoder") or target.network.architecture
        raise DeepLearningError(
            f"Weights must fit the encoder of '{target.network.architecture}' ({title}); {len(fitting)} of its "
            f"{len(needed)} arrays have a counterpart of the same shape in {source.origin}. {_WAY_OUT}"
        )
    return needed


def is_encoder(name: str) -> bool:
    """Whether an array or a layer belongs to the encoder: what is neither of the decoder nor the last layer."""
    return not name.startswith((DECODER, HEAD))


def _layer_of(name: str) -> str:
    return name.partition("/")[0]


def _variables(model: Any) -> dict[str, Any]:
    """Variables by names of layer and variable, which are those of any network built alike."""
    return {f"{layer.name}/{variable.name}": variable for layer in model.layers for variable in layer.weights}


def _arrays(model: Any) -> Arrays:
    return {name: np.array(keras.ops.convert_to_numpy(value)) for name, value in _variables(model).items()}


class Tuning(Learning):
    """How the parts of a network learn; the encoder is named by its layers."""

    @classmethod
    def of(cls, module: Module, initial: Initial | None, freeze: str, factor: float) -> Tuning:
        """The tuning of ``freeze=`` (none, encoder, or a number of epochs) and ``encoder_rate=``.

        A first layer that met new bands is not of the encoder, nor is what did not come with the weights: it has to
        learn.
        """
        if initial is None or (freeze == "none" and factor == 1):
            return cls.alike()
        missing = {_layer_of(name) for name in _variables(module.model) if name not in initial.arrays}
        names = {_layer_of(name) for name in initial.arrays if is_encoder(name)}
        return cls.chosen(names - missing - initial.renewed, freeze, factor)

    def factors(self, model: Any) -> list[float]:
        """Factor of the learning rate of each trainable variable."""
        return [
            self.factor if layer.name in self.encoder else 1.0
            for layer in model.layers
            for _ in layer.trainable_variables
        ]

    def begin_epoch(self, model: Any, epoch: int) -> bool:
        """Freeze or thaw the encoder, and the statistics of its normalisation with it; whether anything changed.

        Args:
            model: the network.
            epoch: counted from 0.
        """
        if not self.is_ever_frozen():
            return False
        learns = self.learns(epoch)
        changed = [layer for layer in model.layers if layer.name in self.encoder and layer.trainable != learns]
        for layer in changed:
            layer.trainable = learns
        return bool(changed)


def serves_factors() -> bool:
    """Whether parts of a network may learn at rates of their own: other engines step through all of them at once."""
    return ENGINE == "tensorflow"


def graded(kind: Any, factors: list[float]) -> Any:
    """An optimizer of Keras in which variables learn at the learning rate times their factor."""
    if all(factor == 1 for factor in factors):
        return kind

    class Graded(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
            factor = factors[self._get_variable_index(variable)]
            if factor != 1 and self.weight_decay:
                decay = keras.ops.cast(self.weight_decay * factor * learning_rate, variable.dtype)
                self.assign_sub(variable, variable * decay)
            return super().update_step(gradient, variable, learning_rate * factor)

        def _use_weight_decay(self, variable: Any) -> bool:
            return factors[self._get_variable_index(variable)] == 1

    return Graded
