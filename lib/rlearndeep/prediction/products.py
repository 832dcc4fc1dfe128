"""Which maps a prediction makes, by what its models predict."""

from __future__ import annotations

from dataclasses import dataclass

from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.answers import Subject
from rlearndeep.prediction.maps import Layer

# Option -> what its map holds, for each task; what is missing has no meaning there.
_KINDS = {
    "class": {
        "output": "class",
        "probabilities": "probability",
        "confidence": "confidence",
        "margin": "margin",
        "entropy": "entropy",
        "spread": "spread",
        "novelty": "novelty",
        "segments_output": "class",
    },
    "presence": {
        "output": "presence",
        "probabilities": "probability",
        "entropy": "entropy",
        "spread": "spread",
        "novelty": "novelty",
        "segments_output": "presence",
    },
    "value": {"output": "value", "spread": "spread", "novelty": "novelty", "segments_output": "value"},
}
_PER_CLASS = ("probability", "presence")
_SAYS = {
    "presence": ("whether each class is there", "Use probabilities=, entropy= or spread="),
    "value": ("a number", "Use spread= with several models or augment=, or novelty="),
}


@dataclass(frozen=True)
class Product:
    """A map to make.

    Attributes:
        name: of the new raster.
        layer: what it holds.
        of_segments: whether its cells have the values of their segments.
    """

    name: str
    layer: Layer
    of_segments: bool = False


def plan_products(wanted: dict[str, str], subject: Subject, answers: int) -> list[Product]:
    """The maps that options ask for, in the order of the options.

    Args:
        wanted: names or basenames by option; empty where a map is not wanted.
        subject: what the models predict.
        answers: how many answers are averaged per cell: models times views.

    Raises:
        DeepLearningError: a map that has no meaning for these models, or a basename with a dot.
    """
    products: list[Product] = []
    for option, name in wanted.items():
        if not name:
            continue
        kind = _KINDS[subject.task].get(option)
        if kind is None:
            says, way_out = _SAYS[subject.task]
            raise DeepLearningError(
                f"A map of this kind needs a model that chooses one class of several; got {option}={name} for a model "
                f"that says {says}. {way_out}."
            )
        if kind == "spread" and answers < 2:
            raise DeepLearningError(
                f"A spread needs several answers; got {option}={name} with one model and augment=none. Give several "
                "models, or augment=flips or d4."
            )
        if kind not in _PER_CLASS:
            products.append(Product(name, Layer(kind), option == "segments_output"))
            continue
        if "." in name:
            raise DeepLearningError(
                f"Names of maps per class become columns of tables and hold no dots; got {option}={name}. "
                "Choose another basename."
            )
        products += [
            Product(f"{name}_{category}", Layer(kind, index), option == "segments_output")
            for index, category in enumerate(subject.classes.categories)
        ]
    return products
