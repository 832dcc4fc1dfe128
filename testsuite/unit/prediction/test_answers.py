"""Answers of several models in several views, their spread, and their novelty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, Network
from rlearndeep.prediction.answers import (
    Member,
    Question,
    Subject,
    check_members,
    check_views,
    label_remarks,
    tile_remarks,
)
from rlearndeep.prediction.planning import make_plan
from rlearndeep.prediction.views import VIEWS
from rlearndeep.scene.bands import Band, BandStatistics, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.novelty import FeatureSpace
from rlearndeep.scene.tasks import Quantity

CLASSES = ClassTable((MapClass(1, "one"), MapClass(2, "two")))
CARD = ModelCard(
    "torch", "w", Network("fake", 1, 2), "cell", (Band("b"),), Normalization("none"), CLASSES, (4, 4), (1.0, 1.0)
)
VALUES = replace(
    CARD,
    task="value",
    classes=ClassTable(()),
    network=Network("fake", 1, 1),
    quantity=Quantity("height", "m"),
    target=BandStatistics(9, 1000.0, 10.0, 900.0, 1100.0),
)


class Left:
    """Scores grow towards the left of what it sees, whatever the ground: only views can repair it."""

    pixels_per_batch = 99
    is_apart = False

    def predict(self, batch):
        rows, cols = batch.shape[-2:]
        plane = np.broadcast_to(np.linspace(0.9, 0.1, cols, dtype=np.float32), (len(batch), rows, cols))
        return np.stack([plane, 1 - plane], axis=1)

    def predict_with_features(self, batch):
        return self.predict(batch), batch[:, :, ::2, ::2]


class Values:
    """One more than the cell's value."""

    pixels_per_batch = 99
    is_apart = False

    def __init__(self, more: float = 1.0):
        self.more = more

    def predict(self, batch):
        return batch + np.float32(self.more)


def member(predictor, card=CARD, space=None) -> Member:
    return Member(predictor, card, (0,), space)


def test_views_are_averaged_where_they_belong():
    batch = np.zeros((2, 1, 3, 5), np.float32)
    once = member(Left()).answer(Question(Subject.of(CARD)), batch)
    assert once[0, 0, 0].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    for views in ("flips", "d4"):
        mean = member(Left()).answer(Question(Subject.of(CARD), VIEWS[views]), batch)
        np.testing.assert_allclose(mean, 0.5, atol=1e-6)


def test_the_spread_of_classes_is_what_entropy_of_the_mean_exceeds_mean_entropy_by():
    question = Question(Subject.of(CARD), VIEWS["flips"], spread=True)
    answer = member(Left()).answer(question, np.zeros((1, 1, 1, 5), np.float32))[0]
    spread = question.subject.spread(answer[:2], answer[2])
    # Both halves of the views say p and 1 - p: their mean is undecided, entropy 1 bit of 1.
    p = np.array([0.9, 0.7, 0.5, 0.3, 0.1])
    np.testing.assert_allclose(spread[0], 1 + p * np.log2(p) + (1 - p) * np.log2(1 - p), atol=1e-5)
    alone = member(Left()).answer(Question(Subject.of(CARD), spread=True), np.zeros((1, 1, 1, 5), np.float32))[0]
    np.testing.assert_allclose(question.subject.spread(alone[:2], alone[2]), 0, atol=1e-6)


def test_the_spread_of_values_is_their_standard_deviation():
    subject = Subject.of(VALUES)
    question = Question(subject, spread=True)
    batch = np.linspace(980, 1020, 6, dtype=np.float32).reshape(1, 1, 2, 3)
    answers = [member(Values(more), VALUES).answer(question, batch)[0] for more in (0.0, 0.5, 4.0)]
    mean = np.mean(answers, axis=0)
    np.testing.assert_allclose(mean[:1], batch[0] + 1.5)
    np.testing.assert_allclose(subject.spread(mean[:1], mean[1]), np.std([0, 0.5, 4]), rtol=1e-3)


def test_presence_is_undecided_in_every_class():
    subject = Subject("presence", CLASSES)
    entropy = subject.inner(np.array([[0.5, 0.0, 1.0], [0.5, 1.0, 0.5]], np.float32))
    np.testing.assert_allclose(entropy, [1, 0, 0.5], atol=1e-6)


def test_novelty_is_that_of_the_image_as_it_is_and_fills_the_cells_of_coarser_features():
    space = FeatureSpace(np.ones(1, np.float32), np.zeros((1, 1), np.float32), 1.0, 2.0)
    batch = np.zeros((1, 1, 4, 5), np.float32)
    batch[0, 0, 2, 4] = 6
    question = Question(Subject.of(CARD), VIEWS["d4"], spread=True, novelty=True)
    answer = member(Left(), space=space).answer(question, batch)
    assert answer.shape == (1, question.planes, 4, 5) == (1, 4, 4, 5)
    expected = np.zeros((4, 5))
    expected[2:, 4] = 3
    np.testing.assert_allclose(answer[0, 3], expected)


def test_models_that_predict_other_things_are_not_averaged():
    check_members([VALUES, VALUES], ["a", "b"])
    with pytest.raises(DeepLearningError, match="'a' predicts values of height in m, 'b' one class of several"):
        check_members([VALUES, CARD], ["a", "b"])
    with pytest.raises(DeepLearningError, match="must predict the same"):
        check_members([VALUES, replace(VALUES, quantity=Quantity("height", "ft"))], ["a", "b"])
    with pytest.raises(DeepLearningError, match="augment=flips"):
        check_views([replace(CARD, unit="patch", patch=(4, 6))], "d4")
    check_views([replace(CARD, unit="patch", patch=(4, 6))], "flips")
    check_views([replace(CARD, patch=(4, 6))], "d4")


def test_models_that_see_less_than_in_training_for_the_sake_of_another_are_told():
    wide, single = replace(CARD, patch=(64, 64), reach=9), replace(CARD, patch=(64, 64), reach=0)
    small = replace(CARD, patch=(16, 32), reach=4, largest=(16, 32))

    def remarks(*cards: ModelCard) -> list[str]:
        return tile_remarks(cards, ["a", "b"][: len(cards)], make_plan(cards).input_size)

    (remark,) = remarks(small, wide)
    assert "'b' was trained on patches of 64 x 64 cells and is shown 16 x 32" in remark
    assert remarks(small) == remarks(small, single) == remarks(wide, single) == remarks(small, small) == []


def test_categories_with_other_labels_are_told_and_those_without_a_label_are_not():
    other = ClassTable((MapClass(1, "one"), MapClass(2, "water")))
    bare = ClassTable((MapClass(1, ""), MapClass(2, "two")))
    cards = [CARD, replace(CARD, classes=bare), replace(CARD, classes=other)]
    check_members(cards, ["a", "b", "c"])
    (remark,) = label_remarks(cards, ["a", "b", "c"])
    assert "Category 2 is 'two' in 'a' and 'water' in 'c'" in remark
    assert label_remarks([CARD], ["a"]) == label_remarks([VALUES, VALUES], ["a", "b"]) == []
