"""What reaches the network is what NumPy would make of the stored values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rlearndeep.ahead import ahead
from rlearndeep.backends.torch.feeding import _tensors, normalized, on_device
from rlearndeep.learning.feeding import Sites
from rlearndeep.patches import PatchDataset
from rlearndeep.scene.bands import Normalization
from synthetic_patches import make_patches


@pytest.mark.parametrize("method", ("band", "cell", "none"))
@pytest.mark.parametrize("dtype", (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64))
def test_normalisation_is_that_of_prediction(method: str, dtype: type) -> None:
    random = np.random.default_rng(1)
    values = random.integers(0, 120, (3, 4, 5, 6)).astype(dtype)
    values[0, :, 0, 0] = 7  # no spread over the bands
    valid = random.random((3, 5, 6)) < 0.8
    normalization = (
        Normalization(method, (50.0,) * 4, (3.0, 10.0, 0.5, 1.0)) if method == "band" else Normalization(method)
    )
    found = normalized(torch.from_numpy(values), torch.from_numpy(valid), normalization).numpy()
    expected = normalization.apply(values, valid)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if method != "cell":
        np.testing.assert_array_equal(found, expected)


def test_small_numbers_are_standardised_over_the_bands_of_a_cell_as_in_prediction() -> None:
    values = np.random.default_rng(1).normal(3e-9, 1e-9, (3, 4, 5, 6))
    valid = np.ones((3, 5, 6), dtype=bool)
    found = normalized(torch.from_numpy(values), torch.from_numpy(valid), Normalization("cell")).numpy()
    np.testing.assert_allclose(found, Normalization("cell").apply(values, valid), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("unit", "task"),
    (("cell", "class"), ("patch", "class"), ("patch", "presence"), ("cell", "value"), ("patch", "value")),
)
def test_batches_on_the_device_are_those_of_the_part(tmp_path: Path, unit: str, task: str) -> None:
    dataset = make_patches(tmp_path / "a", unit, 8, null=0.2, unlabelled=0.3, task=task)
    if unit == "cell":
        labels = np.load(tmp_path / "a" / "labels.npy")
        labels[~dataset.valid()] = 1  # a label under null does not count
        np.save(tmp_path / "a" / "labels.npy", labels)
    sites = Sites.of([PatchDataset.open(tmp_path / "a")])
    part = sites.part("training", Normalization.from_statistics("band", sites.statistics))
    stream = on_device(part.raw_batches(7), part, torch.device("cpu"))
    for (images, labels), (expected, marks) in zip(stream, part.batches(7), strict=True):
        np.testing.assert_array_equal(images.numpy(), expected)
        np.testing.assert_array_equal(labels.numpy(), marks)
        assert labels.dtype == (torch.float32 if task == "value" else torch.int64)


def test_batches_are_read_ahead_in_their_order_and_errors_pass() -> None:
    def numbers():
        yield from range(5)
        raise ValueError("the disk is gone")

    found = []
    with pytest.raises(ValueError, match="gone"):
        for number in ahead(numbers()):
            found.append(number)
    assert found == list(range(5))
    assert list(ahead(iter(()))) == []


@pytest.mark.parametrize("dtype", (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64))
def test_what_goes_to_mps_is_of_a_type_that_it_has(dtype: type) -> None:
    values = np.array([[0, 1, np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 0.1]], dtype=dtype)
    ((found, valid, labels),) = _tensors(iter([(values, values > 0, values)]), torch.device("mps"))
    assert not {torch.float64, torch.uint16, torch.uint32} & {found.dtype, valid.dtype, labels.dtype}
    np.testing.assert_array_equal(found.float().numpy(), values.astype(np.float32))
    assert labels.is_floating_point() == np.issubdtype(dtype, np.floating)
