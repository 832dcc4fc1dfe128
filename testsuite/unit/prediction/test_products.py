"""Which maps are made, and which have no meaning."""

from __future__ import annotations

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.answers import Subject
from rlearndeep.prediction.products import plan_products
from rlearndeep.scene.classes import ClassTable, MapClass

CLASSES = ClassTable((MapClass(2, "a"), MapClass(7, "b")))
NOTHING = ClassTable(())


def names(subject: Subject, answers: int = 1, **wanted: str) -> list[tuple]:
    products = plan_products(wanted, subject, answers)
    return [(product.name, product.layer.kind, product.layer.class_index, product.of_segments) for product in products]


def test_classes_have_one_map_and_probabilities_one_each():
    assert names(Subject("class", CLASSES), output="m", probabilities="p", margin="", segments_output="s") == [
        ("m", "class", 0, False),
        ("p_2", "probability", 0, False),
        ("p_7", "probability", 1, False),
        ("s", "class", 0, True),
    ]


def test_presence_has_a_map_per_class():
    assert names(Subject("presence", CLASSES), output="m", segments_output="s") == [
        ("m_2", "presence", 0, False),
        ("m_7", "presence", 1, False),
        ("s_2", "presence", 0, True),
        ("s_7", "presence", 1, True),
    ]


def test_values_have_one_map():
    assert names(Subject("value", NOTHING), 2, output="m", spread="d") == [
        ("m", "value", 0, False),
        ("d", "spread", 0, False),
    ]


@pytest.mark.parametrize(
    ("task", "option"),
    [("value", "probabilities"), ("value", "confidence"), ("value", "margin"), ("value", "entropy"),
     ("presence", "confidence"), ("presence", "margin")],
)  # fmt: skip
def test_maps_without_a_meaning_are_refused(task, option):
    classes = NOTHING if task == "value" else CLASSES
    with pytest.raises(DeepLearningError, match=f"{option}=x.*Use"):
        plan_products({option: "x"}, Subject(task, classes), 1)


def test_one_answer_has_no_spread_and_basenames_have_no_dots():
    with pytest.raises(DeepLearningError, match=r"several answers.*flips"):
        plan_products({"spread": "x"}, Subject("class", CLASSES), 1)
    with pytest.raises(DeepLearningError, match=r"no dots; got output=a\.b"):
        plan_products({"output": "a.b"}, Subject("presence", CLASSES), 1)
    assert names(Subject("class", CLASSES), output="a.b")[0][0] == "a.b"
