"""Export to ONNX, with the metadata that the QGIS plugin Deepness reads.

The graph takes raw values and gives scores (or values in the user's units): normalisation is inside. Deepness
divides what it reads by 255 and then standardises it; the metadata undo the division.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rlearndeep.backends import require
from rlearndeep.backends.torch.tasks import decoded
from rlearndeep.backends.torch.weights import load_network
from rlearndeep.errors import DeepLearningError
from rlearndeep.files import appearing, check_place
from rlearndeep.model import ModelCard
from rlearndeep.scene.bands import SMALLEST_SPREAD
from rlearndeep.scene.units import length_unit

_OPSET = 18
_SMALLEST_TILE = 256
_MOST_OVERLAP = 50  # percent
_BYTE = 255.0


class FromRaw(nn.Module):
    """The network between raw values, in which null is NaN, and answers."""

    def __init__(self, module: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.module, self.task, self.target = module, card.task, card.target
        self.method = card.normalization.method
        self.mean: Tensor
        self.std: Tensor
        if self.method == "band":
            self.register_buffer("mean", torch.tensor(card.normalization.mean)[None, :, None, None])
            self.register_buffer("std", torch.tensor(card.normalization.std)[None, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Answers (N, classes, rows, cols) or (N, classes)."""
        valid = (images == images).all(dim=1, keepdim=True)  # NaN differs from itself
        if self.method == "band":
            images = (images - self.mean) / self.std
        elif self.method == "cell":
            middle = images.mean(dim=1, keepdim=True)
            images = images - middle
            spread = images.pow(2).mean(dim=1, keepdim=True).sqrt()
            images = images / torch.where(spread > SMALLEST_SPREAD * middle.abs(), spread, torch.ones_like(spread))
        images = torch.where(valid, images, torch.zeros_like(images))
        return decoded(self.module(images), self.task, self.target)


def check_onnx(file: Path, overwrite: bool) -> None:
    """What an export needs, before anything is trained.

    Raises:
        DeepLearningError: the file exists and is not to be replaced, or cannot be one.
        MissingPackage: ``onnx`` or ``onnxscript`` is not installed.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "The option onnx=")
    check_place(file, "onnx")
    if file.exists() and not overwrite:
        raise DeepLearningError(
            f"A file is not replaced unasked; '{file}' exists. Choose another name or add --overwrite."
        )


def export_onnx(directory: Path, card: ModelCard, file: Path) -> None:
    """Write a model directory's network as an ONNX file, whole or not at all.

    Rows and columns of the input are those of a square tile, or of a patch; the batch is free, but one tile for
    values, as Deepness wants it.

    Raises:
        DeepLearningError: the network cannot be expressed in ONNX, or the file cannot be written.
        MissingPackage: ``onnx`` or ``onnxscript`` is not installed.
    """
    onnx = require("onnx", "The option onnx=")
    if card.branches:
        raise DeepLearningError(
            f"A file of ONNX takes one image; the network '{card.network.architecture}' takes several sources, each in "
            "its own cells. Leave onnx= out, or train another architecture=, which stacks the sources."
        )
    module = FromRaw(load_network(card.network, directory / card.weights), card).eval()
    count = 1 if card.task == "value" else 2
    example = torch.zeros((count, len(card.bands), *tile(card)))
    free = {"images": {0: torch.export.Dim("batch")}} if count > 1 else None
    try:
        model = _converted(module, example, free)
        for key, value in metadata(card).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, json.dumps(value, ensure_ascii=False)
        with appearing(file) as hidden:
            onnx.save(model, str(hidden))
    except OSError as error:
        raise DeepLearningError(
            f"The file of onnx= must be writable; '{file}' is not ({error.strerror or error}). Choose another place."
        ) from error


def _converted(module: nn.Module, example: Tensor, free: Any) -> Any:
    loud = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    for logger in loud:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=["images"],
                output_names=["scores"],
                dynamic_shapes=free,
                verbose=False,
            )
    except Exception as error:  # the exporter has no root of its errors
        root = error.__cause__ or error
        reason = " ".join(f"{type(root).__name__}: {root}".split())[:200]
        raise DeepLearningError(
            f"The network must consist of what ONNX knows; the export failed ({reason}). Leave onnx= out or choose "
            "another architecture=."
        ) from error
    return cast(Any, program).model_proto


def tile(card: ModelCard) -> tuple[int, int]:
    """Rows and columns of the exported input: a square tile of at least 256 cells, or the patch."""
    if card.unit == "patch":
        return card.patch
    if card.largest:
        return card.largest
    side = max(_SMALLEST_TILE, *card.patch)
    side = -(-side // card.stride) * card.stride
    return side, side


def metadata(card: ModelCard) -> dict[str, Any]:
    """What Deepness reads: kind, classes, resolution in cm, tiles, standardisation; and what it does not."""
    side = tile(card)[0]
    found: dict[str, Any] = {
        "tiles_size": side,
        "tile_size": side,
        "standardization_mean": [0.0] * len(card.bands),
        "standardization_std": [1 / _BYTE] * len(card.bands),
        "bands": [str(band.semantic_label or band.name) for band in card.bands],
    }
    if card.task == "value":
        found |= {"reg_output_scaling": 1.0, **({"model_type": "Regressor"} if card.unit == "cell" else {})}
    else:
        found |= {"class_names": dict(enumerate(card.classes.labels))}
        found |= {"categories": [int(category) for category in card.classes.categories]}
    if card.unit == "cell":
        overlap = math.ceil(100 * 2 * (card.reach or 0) / side)
        found["tiles_overlap"] = min(_MOST_OVERLAP, overlap)
        if card.task == "class":
            # Deepness' own thresholds would turn doubtful cells into the first class.
            found |= {"model_type": "Segmentor", "seg_thresh": 0.0, "seg_small_segment": 0}
    metres = length_unit(str(card.projection.get("wkt") or ""))
    if metres:
        found["resolution"] = 100 * metres * card.resolution[0]
    return found
