"""Weights to begin with: of ImageNet, of a file, of another model of this suite.

Names of tensors are compared after the prefixes under which libraries keep a network (``module.``, ``backbone.``,
``encoder.``, ``model.``, ...): the pair of prefixes that fits most tensors is taken. So a classifier's trunk fits the
encoder of a segmentation network, and the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlearndeep.backends import beginning
from rlearndeep.backends.beginning import Learning, Source, Target, are_the_same, is_enough, note_of, read_model
from rlearndeep.backends.fusing import Fusing, branch_of, inputs_in_order, paired, under_names
from rlearndeep.backends.torch.layouts import in_names_of, that_fits, unflattened
from rlearndeep.backends.torch.networks import outlined
from rlearndeep.backends.torch.positions import resampled_positions, tells_positions
from rlearndeep.backends.torch.pretrained import imagenet_weights
from rlearndeep.backends.torch.weights import read_tensors
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import FEATURES, MANIFEST, Network
from rlearndeep.scene.bands import Band
from rlearndeep.scene.spectrum import RGB, counterparts, shared_out

# The order of the files of TorchGeo.
SENTINEL_2 = tuple(Band(f"S2_{number}", f"S2_{number}") for number in (*range(1, 9), "8A", *range(9, 13)))

_DEEPEST_PREFIX = 4
_BRANCHES = "inner.branches."
_HEAD = "inner.segmentation_head.weight"
_ENCODER = re.compile(r"inner\.(encoder|branches\.\w+)\.")
# A model of this suite holds its network under one of these.
_PREFIXES = ("", "inner.", "inner.encoder.", "inner.encoder.model.")


class Initial(beginning.Initial[Tensor]):
    """What a network of PyTorch begins with: tensors by their names."""

    def load_into(self, module: nn.Module) -> None:
        """Give a network, as ``build`` made it, these weights; what they do not cover stays as it is."""
        state = module.state_dict()
        with torch.no_grad():
            for name, tensor in self.arrays.items():
                state[name].copy_(tensor)
            for name, (indices, values) in self.rows.items():
                state[name][list(indices)] = values.to(state[name].dtype)


def initial_weights(choice: str, target: Target) -> Initial | None:
    """The weights of a ``weights=`` value: none, imagenet, a file, or a model directory.

    Raises:
        DeepLearningError: no such file, unreadable, not to be had without a download, or hardly anything fits.
    """
    if choice == "none":
        return None
    if choice == "imagenet":
        tensors, licence = imagenet_weights(target.network)
        source: Source[Tensor] = Source(tensors, "ImageNet", RGB, licence=licence)
    elif Path(choice).is_dir():
        source = _of_model(Path(choice))
    else:
        source = Source(read_tensors(Path(choice)), f"'{choice}'")
    return fitted(source, target)


def _of_model(directory: Path) -> Source[Tensor]:
    if not (directory / MANIFEST).is_file():
        raise DeepLearningError(
            f"A directory of weights= must be a model of r.learn.deep.train; '{directory}' has no {MANIFEST}. "
            "Give a model directory, a weights file, imagenet or none."
        )
    card = read_model(directory, "torch")
    tensors = read_tensors(directory / card.weights)
    classes = None if card.task == FEATURES else card.classes
    rows, cols = card.patch
    branches = {branch.name: branch.bands for branch in card.branches}
    return Source(tensors, f"'{directory}'", card.bands, classes, card.task, square=rows == cols, branches=branches)


def fitted(source: Source[Tensor], target: Target) -> Initial:
    """What of a source fits a network, with the first layer turned to its bands and the last to its classes.

    Raises:
        DeepLearningError: less than half of the encoder's tensors have a counterpart.
    """
    outline = outlined(target.network)
    expected = {name: tensor.shape for name, tensor in outline.state_dict().items()}
    inputs = _changing(target.network, expected, bands=target.network.bands + 1)
    heads = _changing(target.network, expected, classes=target.network.classes + 1)
    if source.branches and target.branches:
        inputs |= _changing(target.network, expected, options=_with_more_bands(target.network))
        source = _by_our_branches(source, target)
    source = replace(source, arrays=in_names_of(target.network, expected, source.arrays))
    positions = {name for name in expected if source.square and tells_positions(name)}
    names = _matched(expected, source.arrays, inputs | heads | positions)
    bands = source.bands or _assumed([source.arrays[names[name]] for name in names if name in inputs], target.bands)
    source = replace(source, bands=bands)
    tensors: dict[str, Tensor] = {}
    renewed: set[str] = set()
    rows: dict[str, tuple[tuple[int, ...], Tensor]] = {}
    for name, origin in names.items():
        tensor = source.arrays[origin]
        if name in heads:
            rows.update(_rows(name, tensor, expected[name], source, target))
        elif name in inputs:
            branch = branch_of(name)
            offered, wanted = source.bands_of(branch), target.bands_of(branch)
            turned = _turned(tensor, expected[name], offered, wanted, 1 if branch else 0)
            if turned is not None:
                tensors[name] = turned
                renewed |= set() if are_the_same(wanted, offered) else {name}
        else:
            tensors.update(_of_its_size(name, tensor, outline, name in positions))
    rows = rows if heads <= rows.keys() else {}
    needed = _check(tensors, source, target, expected)
    taken = f"{len(_weighty({*tensors, *rows}))} of {len(_weighty(expected))} tensors"
    anew = sum(name not in tensors for name in needed if not name.startswith(_BRANCHES))
    note = note_of(source, target, taken, renewed, rows, anew)
    return Initial(tensors, frozenset(renewed), rows, source.origin, note, source.licence)


def _of_its_size(name: str, tensor: Tensor, outline: nn.Module, has_positions: bool) -> dict[str, Tensor]:
    """The tensor by its name, resampled where it tells positions; nothing where it has another shape and cannot be.

    Places of a square may be as many as those of a patch that is none.
    """
    owner, _, own = name.rpartition(".")
    layer: Any = outline.get_submodule(owner)
    resampled = resampled_positions(tensor, own, layer) if has_positions else None
    found = tensor if resampled is None else resampled
    return {name: found} if found.shape == getattr(layer, own).shape else {}


def _shapes(network: Network) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in outlined(network).state_dict().items()}


def _changing(network: Network, shapes: Mapping[str, torch.Size], **change: Any) -> set[str]:
    """Names of the tensors whose shape follows the number of bands, of classes, or an option."""
    other = _shapes(replace(network, **change))
    return {name for name, shape in shapes.items() if other.get(name) != shape}


def _matched(expected: Mapping[str, torch.Size], found: Mapping[str, Tensor], free: set[str]) -> dict[str, str]:
    """For each name in the network the name in the source, by the pair of prefixes that fits most.

    Shapes have to agree, but for the ``free`` ones.
    """
    best: dict[str, str] = {}
    most = -1
    known = {unflattened(name): name for name in found}
    for ours in _PREFIXES:
        inside = {name: unflattened(name[len(ours) :]) for name in expected if name.startswith(ours)}
        for theirs in _prefixes(known):
            pairs = {name: known[theirs + rest] for name, rest in inside.items() if theirs + rest in known}
            fits = {
                name: other for name, other in pairs.items() if name in free or found[other].shape == expected[name]
            }
            if len(fits) > most:
                best, most = fits, len(fits)
    return best


def _prefixes(names: Iterable[str]) -> list[str]:
    """Every beginning of the names that ends in a dot, and none at all; short ones first."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1][:_DEEPEST_PREFIX]
        found.update(".".join(parts[:count]) + "." for count in range(1, len(parts) + 1))
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _with_more_bands(network: Network) -> dict[str, Any]:
    """Options of a network whose branches have a band more."""
    sources = [{**source, "bands": source["bands"] + 1} for source in network.options["sources"]]
    return {**network.options, "sources": sources}


def _by_our_branches(source: Source[Tensor], target: Target) -> Source[Tensor]:
    """A source whose branches have the names and the order of those of the network that begin with them."""
    pairs = paired(target.branches, source.branches)
    arrays = under_names(source.arrays, pairs)
    recipe = Fusing.of(target.network)
    head = arrays.get(_HEAD)
    if recipe.per_patch and head is not None and head.dim() == 2:
        order = inputs_in_order(pairs, target.branches, source.branches, head.shape[1], 2 * recipe.widths[0])
        arrays[_HEAD] = head[:, order]
    return replace(source, arrays=arrays, branches={mine: source.branches[theirs] for mine, theirs in pairs.items()})


def _turned(
    tensor: Tensor, shape: torch.Size, offered: Sequence[Band], wanted: Sequence[Band], beside: int
) -> Tensor | None:
    """Filters of the first layer for other bands; None where the layer is another one.

    Args:
        tensor: the filters.
        shape: that they are to have.
        offered, wanted: bands of the filters, and of the network.
        beside: how many inputs, behind the bands, are none.
    """
    if tensor.dim() != len(shape) or tensor.dim() < 2 or tensor.shape[0] != shape[0] or tensor.shape[2:] != shape[2:]:
        return None
    if shape[1] != len(wanted) + beside or tensor.shape[1] != len(offered) + beside:
        return None
    filters, rest = tensor.float().split([len(offered), beside], dim=1)
    turned = shared_out(filters.numpy(), counterparts(wanted, offered), axis=1)
    return torch.cat([torch.from_numpy(turned), rest], dim=1)


def _assumed(first_layers: Sequence[Tensor], wanted: Sequence[Band]) -> tuple[Band, ...]:
    """Bands of a file, which does not name them.

    Three are red, green, blue; thirteen are those of Sentinel-2 where ours have such labels; as many as ours are
    ours; any others are unknown.
    """
    count = next((layer.shape[1] for layer in first_layers if layer.dim() > 1), 0)
    if count == len(RGB):
        return RGB
    if count == len(SENTINEL_2) and any((band.semantic_label or "").startswith("S2") for band in wanted):
        return SENTINEL_2
    return tuple(wanted) if count == len(wanted) else tuple(Band(f"?{number}") for number in range(count))


def _rows(
    name: str, tensor: Tensor, shape: torch.Size, source: Source[Tensor], target: Target
) -> dict[str, tuple[tuple[int, ...], Tensor]]:
    """Rows of the last layer of classes that both sides know, by category and label; the value's one row."""
    if tensor.dim() != len(shape) or tensor.shape[1:] != shape[1:]:
        return {}
    pairs = source.shared_outputs(target, shape[0], tensor.shape[0])
    return {name: (tuple(index for index, _ in pairs), tensor[[row for _, row in pairs]])} if pairs else {}


def _weighty(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith("num_batches_tracked")]


def _check(
    tensors: Mapping[str, Tensor], source: Source[Tensor], target: Target, expected: Mapping[str, torch.Size]
) -> list[str]:
    """Refuse weights that hardly fit; the names of the encoder's tensors."""
    belongs = encoder_of(target.network)
    needed = _weighty(name for name in expected if belongs(name))
    fitting = [name for name in needed if name in tensors]
    parts = [[name for name in needed if name.startswith(prefix)] for prefix in _encoders(needed)] or [needed]
    broken = [name for name in tensors if not bool(torch.isfinite(tensors[name].float()).all())]
    if broken:
        raise DeepLearningError(
            f"Weights must be finite; '{broken[0]}' of {source.origin} holds values that are not. Use other weights."
        )
    if not any(is_enough(sum(name in tensors for name in part), len(part)) for part in parts):
        ours, theirs = (_some(_weighty(names)) for names in (needed, source.arrays))
        raise DeepLearningError(
            f"Weights must fit the encoder of '{_title(target.network)}'; {len(fitting)} of its {len(needed)} tensors "
            f"have a counterpart of the same shape in {source.origin}. It needs {ours}; there are {theirs}. "
            f"Choose the architecture= and encoder= that the weights belong to, or {that_fits(target.network)}."
        )
    return needed


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(names[:3])
    return f"{listed}, and {len(names) - 3} more" if len(names) > 3 else listed or "none"


def _title(network: Network) -> str:
    encoder = network.options.get("encoder")
    return f"{network.architecture} ({encoder})" if encoder else network.architecture


def encoder_of(network: Network) -> Callable[[str], bool]:
    """Whether a tensor belongs to the encoder.

    That is, of a segmentation network its encoder, of a fusion network the branches too, else all but the last layer.
    """
    shapes = _shapes(network)
    encoders = _encoders(shapes)
    if encoders:
        return lambda name: name.startswith(encoders)
    heads = _changing(network, shapes, classes=network.classes + 1)
    return lambda name: name not in heads


def _encoders(names: Iterable[str]) -> tuple[str, ...]:
    """Beginnings of the names of the tensors of each encoder."""
    return tuple(sorted({found.group() for name in names if (found := _ENCODER.match(name))}))


class Tuning(Learning):
    """How the parts of a network learn; the encoder is named by its parameters and buffers."""

    @classmethod
    def of(cls, network: Network, initial: Initial | None, freeze: str, factor: float) -> Tuning:
        """The tuning of ``freeze=`` (none, encoder, or a number of epochs) and ``encoder_rate=``.

        A first layer that met new bands is not of the encoder, nor is what did not come with the weights: it has to
        learn.
        """
        if initial is None or (freeze == "none" and factor == 1):
            return cls.alike()
        belongs = encoder_of(network)
        return cls.chosen(
            (name for name in initial.arrays if belongs(name) and name not in initial.renewed), freeze, factor
        )

    def groups(self, module: nn.Module, rate: float) -> list[dict[str, Any]]:
        """Groups of parameters for an optimizer: those that learn at the full rate first, then the encoder."""
        named = list(module.named_parameters())
        if self.factor == 1 or not self.encoder:
            return [{"params": [parameter for _, parameter in named], "lr": rate}]
        full = [parameter for name, parameter in named if name not in self.encoder]
        slow = [parameter for name, parameter in named if name in self.encoder]
        return [{"params": full, "lr": rate}, {"params": slow, "lr": rate * self.factor}]

    def begin_epoch(self, module: nn.Module, epoch: int) -> None:
        """Freeze or thaw the encoder; a frozen one keeps the statistics of its normalisation too.

        Args:
            epoch: counted from 0.
        """
        if not self.is_ever_frozen():
            return
        learns = self.learns(epoch)
        for name, parameter in module.named_parameters():
            if name in self.encoder:
                parameter.requires_grad_(learns)
        for name, layer in module.named_modules():
            parts = *layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)
            own = _weighty(f"{name}.{part}" for part, _ in parts)
            if own and all(entry in self.encoder for entry in own):
                layer.training = learns  # a normalisation of timm has an activation in it
