"""What a model keeps of its training data tells known from unknown ground, whatever the kind of network."""

from __future__ import annotations

import numpy as np
import pytest
from rlearndeep.learning.feeding import Sites
from rlearndeep.learning.novelty import feature_space
from rlearndeep.learning.options import Settings
from rlearndeep.learning.training import prepare, train
from rlearndeep.model import read_card, read_feature_space
from rlearndeep.scene.bands import Normalization
from rlearndeep.scene.novelty import MOST_VECTORS
from synthetic_patches import make_patches

pytest.importorskip("lightning_fabric")


@pytest.mark.parametrize(
    ("architecture", "unit", "size"),
    [("mlp", "cell", 1), ("fcn_dilated", "cell", 16), ("cnn", "patch", 8)],
)
def test_novelty_tells_unknown_ground(tmp_path, architecture, unit, size):
    from rlearndeep.backends import get_backend

    dataset = make_patches(tmp_path / "patches", unit, size, count=200 if size == 1 else 60)
    options = {"mlp": {"hidden": [16]}, "fcn_dilated": {"filters": 8, "blocks": 2}, "cnn": {"filters": 8, "blocks": 2}}
    settings = Settings(
        architecture=architecture, epochs=12, network=options[architecture], learning_rate=0.01, augment=(), nprocs=1
    )
    backend = get_backend("torch")
    train(prepare([dataset], settings, backend), tmp_path / "model", backend)
    card, space = read_card(tmp_path / "model"), read_feature_space(tmp_path / "model")
    assert card.training["novelty"]["threshold"] == space.threshold
    assert len(space.vectors) <= MOST_VECTORS
    predictor = backend.load(tmp_path / "model", card, "cpu", "32")

    random = np.random.default_rng(9)
    known = dataset.images()[dataset.positions("test")].astype(np.float32)
    # Ground that no training patch shows: every band far brighter, or every class at once.
    unknown = np.concatenate([known + 900, np.full_like(known, 2300) + random.normal(0, 60, known.shape)])
    found = [
        space.novelty(
            predictor.predict_with_features(card.normalization.apply(images, np.ones_like(images[:, 0], bool)))[1]
        )
        for images in (known, unknown)
    ]
    here, there = (values.ravel() for values in found)
    # Probability that unknown ground has the higher novelty: the area under the ROC curve.
    assert (there[:, None] > here[None, :1000]).mean() > 0.9
    assert np.median(here) < 1


def test_every_class_gives_as_many_vectors_as_it_can(tmp_path):
    class Echo:
        """Features are the images, so that a vector tells its class."""

        pixels_per_batch = 4096
        feature_weights = np.ones(4, np.float32)

        def predict_with_features(self, images):
            return images, images

    dataset = make_patches(tmp_path / "patches", "cell", 16, count=60, unlabelled=0.3, null=0.2)
    part = Sites.of([dataset]).part("training", Normalization("none"))
    empty = Sites.of([dataset]).part("validation", Normalization("none"))
    space = feature_space(part, empty, Echo(), seed=1)
    assert len(space.vectors) == MOST_VECTORS
    counts = np.bincount(space.vectors[:, :3].argmax(axis=1))
    assert counts.max() - counts.min() <= 12
    assert space.vectors.min() > 1500  # no null cell, which is 0 once normalised
