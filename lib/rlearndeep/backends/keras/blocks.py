"""What several networks are made of: layers with the numbers of PyTorch, encoders by name, the decoder of a U-Net."""

from __future__ import annotations

from typing import Any

from rlearndeep.backends.keras.encoders import ENCODERS, known
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.recipes import DECODER_WIDTHS
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

layers = keras.layers

HEAD = "head"
"""Name of the last layer with weights; its input are the features."""

DECODER = "decoder_"
"""Names of layers between encoder and head, and of branches, begin so."""


def normalized(values: Any, name: str) -> Any:
    """Batch normalisation with the numbers of PyTorch: Keras' own forgets so slowly that short runs suffer."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(values)


def convolved(values: Any, width: int, name: str, kernel: int = 3, rate: int = 1) -> Any:
    """A convolution of full size, normalised, with ReLU."""
    convolution = layers.Conv2D(
        width,
        kernel,
        padding="same",
        dilation_rate=rate,
        use_bias=False,
        kernel_initializer="he_uniform",
        name=name,
    )
    return layers.ReLU()(normalized(convolution(values), name))


def encoder_name(network: Network) -> str:
    """The option ``encoder``, as Keras calls it.

    Raises:
        DeepLearningError: Keras has no such encoder.
    """
    name = known(str(network.options.get("encoder", "resnet18")))
    if name not in ENCODERS:
        raise DeepLearningError(
            f"The encoder must be one that Keras has; '{str(network.options.get('encoder'))[:100]}' is not one of "
            f"{', '.join(ENCODERS)}. Choose one of them, or backend=torch."
        )
    return name


def unet_decoded(features: list[Any]) -> Any:
    """The decoder of segmentation-models-pytorch, back to the full size.

    Args:
        features: of the encoder, at a half of the size first.
    """
    *skips, values = features
    for number, width in enumerate(DECODER_WIDTHS[-len(features) :], start=1):
        values = layers.UpSampling2D(2)(values)
        values = layers.Concatenate()([values, skips.pop()]) if skips else values
        for half in (1, 2):
            values = convolved(values, width, f"{DECODER}{number}_{half}")
    return values
