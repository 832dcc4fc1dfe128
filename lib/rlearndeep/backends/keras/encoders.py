"""Encoders, those of ``keras.applications`` and two more: what they make at a half, a fourth, ... of the size."""

from __future__ import annotations

import functools
from typing import Any

from rlearndeep.backends.keras.engine import keras

layers = keras.layers

_OWN = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}

# Name in options -> name in keras.applications. Those with layers of their own, or for large pictures only, are left
# out.
_OF_KERAS = {
    name.lower(): name
    for name in (
        *("ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2"),
        *("MobileNet", "MobileNetV2", "DenseNet121", "DenseNet169", "DenseNet201", "VGG16", "VGG19"),
        *(f"EfficientNetB{number}" for number in range(8)),
        *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    )
}

ENCODERS = (*_OWN, *_OF_KERAS)

_STEPS = 5
_WIDTH = 64
_TRIAL = 256  # no padded size equals another one


def known(name: str) -> str:
    """A name without the hyphens and underscores that other libraries write, e.g. of ``efficientnet-b0``."""
    plain = name.lower().replace("-", "").replace("_", "")
    return plain if plain in ENCODERS else name


def published_name(encoder: str) -> str | None:
    """Name in ``keras.applications``, which has weights of ImageNet for it; None for others."""
    return _OF_KERAS.get(encoder)


def encoded(encoder: str, values: Any) -> list[Any]:
    """What an encoder makes of an image, at a half of its size first, then a fourth, and so on to a 32nd.

    Args:
        encoder: one of ``ENCODERS``.
        values: symbolic image (N, rows, cols, bands), rows and cols multiples of 32.
    """
    if encoder in _OWN:
        return _resnet(values, _OWN[encoder])
    made = application(encoder, values)
    return [made.get_layer(name).output for name in _steps(encoder)]


def application(encoder: str, values: Any, weights: str | None = None) -> Any:
    """A model of ``keras.applications`` without its last layer and without its preprocessing of 8-bit pictures.

    Args:
        encoder: name in options.
        values: symbolic image; of three bands where weights are given.
        weights: ``imagenet``, or None for random ones.
    """
    name, options = _OF_KERAS[encoder], {}
    if name.startswith("EfficientNetV2"):
        options["include_preprocessing"] = False
    elif name.startswith("EfficientNet"):
        values = layers.Rescaling(255.0)(values)  # undoes what it begins with
    made = getattr(keras.applications, name)(include_top=False, weights=weights, input_tensor=values, **options)
    for layer in made.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.9  # they forget so slowly that short runs suffer
    return made


@functools.cache
def _steps(encoder: str) -> tuple[str, ...]:
    """Names of the last layers at each size."""
    made = application(encoder, layers.Input((_TRIAL, _TRIAL, 3)))
    last = {}
    for layer in made.layers:
        if len(layer.output.shape) == 4:
            last[layer.output.shape[1:3]] = layer.name
    sizes = [_TRIAL >> step for step in range(1, _STEPS + 1)]
    return tuple(last[size, size] for size in sizes)


def _resnet(values: Any, counts: tuple[int, ...]) -> list[Any]:
    """He et al. 2016, CVPR; the two smallest, which Keras does not have, as PyTorch's libraries build them."""
    values = layers.ReLU()(_convolved(values, _WIDTH, 7, 2, "encoder_stem"))
    steps = [values]
    values = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(values))
    for stage, count in enumerate(counts):
        for number in range(count):
            step = 2 if stage and not number else 1
            values = _block(values, _WIDTH * 2**stage, step, f"encoder_{stage + 1}_{number + 1}")
        steps.append(values)
    return steps


def _block(values: Any, width: int, step: int, name: str) -> Any:
    inner = layers.ReLU()(_convolved(values, width, 3, step, f"{name}_1"))
    inner = _convolved(inner, width, 3, 1, f"{name}_2")
    if step != 1 or values.shape[-1] != width:
        values = _convolved(values, width, 1, step, f"{name}_beside")
    return layers.ReLU()(layers.Add()([inner, values]))


def _convolved(values: Any, width: int, kernel: int, step: int, name: str) -> Any:
    """Padded alike on all sides: Keras' own padding is not where a step is taken."""
    if step > 1 and kernel > 1:
        values = layers.ZeroPadding2D(kernel // 2)(values)
    padding = "valid" if step > 1 else "same"
    values = layers.Conv2D(width, kernel, strides=step, padding=padding, use_bias=False, name=name)(values)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(values)
