"""Networks: built from a description, any number of bands, any size of input; channels last.

They are plain functional models of layers that come with Keras: ``model.keras`` opens without this suite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlearndeep.backends.fusing import FUSION
from rlearndeep.backends.keras.blocks import HEAD, convolved, encoder_name, normalized, unet_decoded
from rlearndeep.backends.keras.encoders import ENCODERS, encoded, known
from rlearndeep.backends.keras.engine import keras, start
from rlearndeep.backends.keras.fusion import IMAGE, fused
from rlearndeep.backends.recipes import OWN, DilatedFCN, Perceptron, SmallCNN, share, unet_depth
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

layers = keras.layers

SEGMENTATION = ("unet", "deeplabv3plus")

_SMALLEST = 32
_RATES = (6, 12, 18)
_PYRAMID_WIDTH = 256
_DETAIL_WIDTH = 48


def answers(architecture: str) -> str:
    """What a network gives a score to: ``cell``, ``patch``, or ``either`` as its option ``unit`` says."""
    if architecture in ("mlp", FUSION):
        return "either"
    return "cell" if architecture in SEGMENTATION or architecture == "fcn_dilated" else "patch"


def check_name(architecture: str) -> None:
    """Refuse a name that no network has.

    Raises:
        DeepLearningError: it is none of this back-end.
    """
    if architecture not in (*OWN, *SEGMENTATION, FUSION) and known(architecture) not in ENCODERS:
        raise DeepLearningError(
            f"The architecture must be one that the back-end 'keras' has: {', '.join((*OWN, *SEGMENTATION, FUSION))}, "
            f"{', '.join(ENCODERS)}; got '{architecture[:100]}'. Choose one of them, or backend=torch."
        )


def stride(network: Network) -> int:
    """Rows and columns of the input are padded to multiples of this many cells."""
    return 2 ** unet_depth(network) if network.architecture in SEGMENTATION else 1


def largest(network: Network) -> tuple[int, int] | None:
    """Rows and columns of the largest picture that a network per cell can be shown: none of these has a limit."""
    return None


def gives_cells(network: Network) -> bool:
    """Whether each cell gets an answer."""
    where = answers(network.architecture)
    return where == "cell" or (where == "either" and network.options.get("unit") != "patch")


def has_encoder(network: Network) -> bool:
    """Whether a part of it is one of ``encoders.ENCODERS``."""
    if network.architecture == FUSION:
        return bool(network.options.get("reference", True))
    return network.architecture not in OWN


def padded_size(network: Network, size: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns that an input, or the reference of several sources, is padded to."""
    fusion = network.architecture == FUSION
    if not has_encoder(network):
        return size[-2], size[-1]
    steps = network.architecture in SEGMENTATION or (fusion and gives_cells(network))
    multiple = 2 ** unet_depth(network) if steps else 1
    smallest = multiple if steps else _SMALLEST
    rows, cols = (max(smallest, -(-cells // multiple) * multiple) for cells in size[-2:])
    return rows, cols


def assembled(network: Network) -> Any:
    """A ``keras.Model`` with random weights.

    Its input is (N, rows, cols, bands), of a size of :func:`padded_size`, or those of :mod:`.fusion`; it gives
    logits, (N, rows, cols, classes) or (N, classes).

    Raises:
        DeepLearningError: unknown architecture, encoder or option value, or too large for any machine.
    """
    start()
    inputs, values = fused(network) if network.architecture == FUSION else _of_image(network)
    # Whatever the precision of the layers, scores are made of 32-bit numbers.
    return keras.Model(inputs, layers.Activation("linear", dtype="float32", name="logits")(values))


def _of_image(network: Network) -> tuple[Any, Any]:
    inputs = layers.Input((None, None, network.bands), name=IMAGE)
    return inputs, _MAKERS.get(network.architecture, _classifier)(network, inputs)


def _small() -> Any:
    """Weights as PyTorch begins its layers with; those of Keras are larger, and learning takes more epochs."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _mlp(network: Network, values: Any) -> Any:
    recipe = Perceptron.of(network)
    for number, width in enumerate(recipe.hidden, start=1):
        values = layers.Dense(width, activation="relu", kernel_initializer=_small(), name=f"hidden_{number}")(values)
        values = layers.Dropout(recipe.dropout)(values) if recipe.dropout else values
    values = layers.Dense(network.classes, kernel_initializer=_small(), name=HEAD)(values)
    return layers.GlobalAveragePooling2D()(values) if recipe.per_patch else values


def _cnn(network: Network, values: Any) -> Any:
    recipe = SmallCNN.of(network)
    for number, width in enumerate(recipe.widths, start=1):
        for half in (1, 2):
            values = convolved(values, width, f"block_{number}_{half}")
        values = layers.MaxPooling2D(2, padding="same")(values)
    values = layers.Dropout(recipe.dropout)(layers.GlobalAveragePooling2D()(values))
    return layers.Dense(network.classes, kernel_initializer=_small(), name=HEAD)(values)


def _fcn_dilated(network: Network, values: Any) -> Any:
    """See ``rlearndeep.backends.torch.networks.DilatedFCN`` for its source; in Keras it was written first."""
    recipe = DilatedFCN.of(network)
    outputs = []
    for number, (kernel, rate) in enumerate(zip(recipe.kernels, recipe.dilations, strict=True), start=1):
        name = f"block_{number}"
        convolution = layers.Conv2D(
            recipe.filters,
            kernel,
            padding="same",
            dilation_rate=rate,
            activation="relu",
            kernel_initializer=_small(),
            name=name,
        )
        values = layers.MaxPooling2D(3, strides=1, padding="same")(normalized(convolution(values), name))
        outputs.append(values)
    joined = layers.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
    return layers.Conv2D(network.classes, 1, kernel_initializer=_small(), name=HEAD)(joined)


def _unet(network: Network, values: Any) -> Any:
    """Ronneberger et al. 2015, MICCAI, with the decoder of segmentation-models-pytorch."""
    values = unet_decoded(encoded(encoder_name(network), values)[: unet_depth(network)])
    return layers.Conv2D(network.classes, 3, padding="same", name=HEAD)(values)


def _deeplabv3plus(network: Network, values: Any) -> Any:
    """Chen et al. 2018, ECCV, on what the encoder makes at a sixteenth of the size."""
    unet_depth(network)
    _, detail, _, deep, _ = encoded(encoder_name(network), values)
    branches = [convolved(deep, _PYRAMID_WIDTH, "decoder_pyramid_1", 1)]
    branches += [convolved(deep, _PYRAMID_WIDTH, f"decoder_pyramid_{rate}", 3, rate) for rate in _RATES]
    whole = convolved(layers.GlobalAveragePooling2D(keepdims=True)(deep), _PYRAMID_WIDTH, "decoder_whole", 1)
    # The mean of the image, joined to every cell and projected, is added after the projection: the same.
    parts = [
        layers.Conv2D(_PYRAMID_WIDTH, 1, use_bias=False, name=f"decoder_projected_{name}")(part)
        for name, part in (("pyramid", layers.Concatenate()(branches)), ("whole", whole))
    ]
    values = layers.ReLU()(normalized(layers.Add()(parts), "decoder_projected"))
    values = _enlarged(layers.Dropout(0.5)(values))
    values = layers.Concatenate()([values, convolved(detail, _DETAIL_WIDTH, "decoder_detail", 1)])
    for half in (1, 2):
        values = convolved(values, _PYRAMID_WIDTH, f"decoder_{half}")
    values = layers.Conv2D(network.classes, 1, name=HEAD)(values)
    return _enlarged(values)


def _enlarged(values: Any) -> Any:
    """Four times the size, without steps: Keras interpolates images of fixed sizes only."""
    return layers.AveragePooling2D(5, strides=1, padding="same")(layers.UpSampling2D(4)(values))


def _classifier(network: Network, values: Any) -> Any:
    check_name(network.architecture)
    values = layers.GlobalAveragePooling2D()(encoded(known(network.architecture), values)[-1])
    dropout = share(network.options.get("dropout", 0.0))
    values = layers.Dropout(dropout)(values) if dropout else values
    return layers.Dense(network.classes, name=HEAD)(values)


_MAKERS: dict[str, Callable[[Network, Any], Any]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "fcn_dilated": _fcn_dilated,
    "unet": _unet,
    "deeplabv3plus": _deeplabv3plus,
}
