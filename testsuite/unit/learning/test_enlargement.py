"""A network that loses what it learned within a larger picture is found out, one that does not is left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rlearndeep.learning.enlargement import mirrored, suffers
from rlearndeep.learning.feeding import Part, Sites
from rlearndeep.learning.tasks import Task, task_of
from rlearndeep.scene.bands import Normalization
from synthetic_patches import make_patches

SIZE = 8


class PerCell:
    """Answers for each cell by its own bands."""

    def __init__(self, task: str) -> None:
        self.task = task

    def predict(self, batch: np.ndarray) -> np.ndarray:
        if self.task == "class":
            return batch[:, :3]
        return 100 + 10 * batch[:, :3].argmax(axis=1, keepdims=True).astype(np.float32)


class AtHomeInPatches(PerCell):
    """The same, but astray in anything larger than a patch."""

    def predict(self, batch: np.ndarray) -> np.ndarray:
        answers = super().predict(batch)
        return answers if batch.shape[-1] == SIZE else np.roll(answers, (3, 3), axis=(-2, -1))


def prepared(path: Path, task: str) -> tuple[Part, Task]:
    dataset = make_patches(path, size=SIZE, count=40, task=task)
    part = Sites.of([dataset]).part("training", Normalization("none"))
    target = part.label_statistics() if task == "value" else None
    return part, task_of(dataset.manifest, dataset.manifest.classes, target)


@pytest.mark.parametrize("task", ["class", "value"])
@pytest.mark.parametrize(("network", "expected"), [(PerCell, False), (AtHomeInPatches, True)])
def test_only_a_network_that_is_worse_in_larger_input_suffers(tmp_path, task, network, expected):
    part, meaning = prepared(tmp_path / "patches", task)
    assert suffers(part, network(task), meaning, 20) is expected


def test_a_patch_stands_amid_its_reflections():
    patch = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    expected = [
        [3, 2, 2, 3, 3, 2],
        [1, 0, 0, 1, 1, 0],
        [1, 0, 0, 1, 1, 0],
        [3, 2, 2, 3, 3, 2],
        [3, 2, 2, 3, 3, 2],
        [1, 0, 0, 1, 1, 0],
    ]
    np.testing.assert_array_equal(mirrored(patch)[0, 0], expected)
