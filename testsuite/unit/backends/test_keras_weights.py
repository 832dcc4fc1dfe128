"""model.keras: whole, or refused in one line; nothing in it can run."""

from __future__ import annotations

import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from rlearndeep.backends import get_backend
from rlearndeep.backends.keras.encoders import _steps
from rlearndeep.backends.keras.engine import keras
from rlearndeep.backends.keras.weights import load_module
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import Network

NETWORK = Network("fcn_dilated", 2, 3, {"filters": 4, "blocks": 2})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.keras"
    backend = get_backend("keras")
    backend.save(backend.build(NETWORK), file)
    return file


def rewritten(whole: Path, file: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def refused(file: Path) -> str:
    with pytest.raises(DeepLearningError) as caught:
        load_module(NETWORK, file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    return str(caught.value)


def test_a_saved_network_answers_as_before_here_and_in_keras_alone(whole: Path) -> None:
    images = np.random.default_rng(1).normal(size=(2, 2, 9, 7)).astype(np.float32)
    module = load_module(NETWORK, whole)
    alone = keras.saving.load_model(whole, safe_mode=True)
    there = np.moveaxis(alone.predict_on_batch(np.moveaxis(images, 1, -1)), -1, 1)
    np.testing.assert_allclose(module.logits(images), there, atol=1e-6)


def in_config(text: str, other: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert text.encode() in members["config.json"]
        members["config.json"] = members["config.json"].replace(text.encode(), other.encode())

    return change


def test_layers_that_could_run_code_are_refused(whole: Path, tmp_path: Path) -> None:
    for text, other in (
        ('"class_name": "MaxPooling2D"', '"class_name": "Lambda"'),
        ('"module": "keras.layers", "class_name": "MaxPooling2D"', '"module": "os", "class_name": "system"'),
        ('"module": "keras.layers"', '"module": "keras_evil"'),
    ):
        assert "code" in refused(rewritten(whole, tmp_path / "model.keras", in_config(text, other)))


def test_a_lambda_that_keras_wrote_is_refused(tmp_path: Path) -> None:
    evil = keras.Sequential([keras.layers.Input((2,)), keras.layers.Lambda(lambda values: values)])
    evil.save(tmp_path / "model.keras")
    assert "code" in refused(tmp_path / "model.keras")


def with_member(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: content})


def test_other_members_and_wrong_sizes_are_refused(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    refused(rewritten(whole, file, with_member("../../evil.py", b"1")))
    refused(rewritten(whole, file, with_member("assets/evil.py", b"1")))
    refused(rewritten(whole, file, with_member("config.json", b"{" * 10)))
    refused(rewritten(whole, file, with_member("config.json", b"[" * 100_000)))
    assert "bytes" in refused(rewritten(whole, file, with_member("model.weights.h5", bytes(2_000_000))))
    refused(rewritten(whole, file, lambda members: members.pop("model.weights.h5")))
    for content in (b"", b"PK", whole.read_bytes()[:-100]):
        file.write_bytes(content)
        refused(file)
    refused(tmp_path / "absent.keras")
    assert not list(tmp_path.parent.glob("evil*"))


def in_arrays(change: Callable[[h5py.File], None]) -> Callable[[dict[str, bytes]], None]:
    def rewrite(members: dict[str, bytes]) -> None:
        stream = io.BytesIO(members["model.weights.h5"])
        with h5py.File(stream, "r+") as file:
            change(file)
        members["model.weights.h5"] = stream.getvalue()

    return rewrite


KERNEL = "layers/conv2d/vars/0"


def test_arrays_that_do_not_fit_are_refused(whole: Path, tmp_path: Path) -> None:
    def replaced(array: np.ndarray) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            del file[KERNEL]
            file[KERNEL] = array

        return change

    def linked(file: h5py.File) -> None:
        del file[KERNEL]
        file[KERNEL] = h5py.ExternalLink("/etc/hostname", "/x")

    with zipfile.ZipFile(whole) as archive, archive.open("model.weights.h5") as stream, h5py.File(stream) as file:
        kernel = np.array(file[KERNEL])
    file = tmp_path / "model.keras"
    assert "finite" in refused(rewritten(whole, file, in_arrays(replaced(np.full_like(kernel, np.nan)))))
    assert "arrays" in refused(rewritten(whole, file, in_arrays(replaced(kernel[..., :2]))))
    refused(rewritten(whole, file, in_arrays(replaced(np.array(["text"] * 3, dtype="S4")))))
    refused(rewritten(whole, file, in_arrays(linked)))
    refused(rewritten(whole, file, in_arrays(lambda arrays: arrays.create_dataset("more", data=kernel))))


def test_weights_of_another_network_are_refused(whole: Path) -> None:
    for other in (Network("fcn_dilated", 2, 4, NETWORK.options), Network("mlp", 2, 3)):
        with pytest.raises(DeepLearningError, match="fit the network"):
            load_module(other, whole)


def test_a_network_far_larger_than_the_file_is_not_built(whole: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for network in (
        Network("mlp", 2, 3, {"hidden": [20000, 20000]}),
        Network("fcn_dilated", 2, 3, {"filters": 8000, "blocks": 2}),
        Network("unet", 200_000, 3, {"encoder": "resnet18"}),
    ):
        with pytest.raises(DeepLearningError, match="far more weights than the file"):
            load_module(network, whole)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert load_module(NETWORK, whole).model.count_params() < 1000


@pytest.mark.parametrize("architecture", ("resnet18", "mobilenetv2"))
def test_a_network_with_an_encoder_is_read_at_first_use(tmp_path: Path, architecture: str) -> None:
    network, file = Network("unet", 1, 2, {"encoder": architecture, "depth": 3}), tmp_path / "model.keras"
    backend = get_backend("keras")
    backend.save(backend.build(network), file)
    _steps.cache_clear()
    assert load_module(network, file).model.count_params() > 1e5


def test_the_configuration_is_what_keras_writes(whole: Path) -> None:
    with zipfile.ZipFile(whole) as archive:
        config = json.loads(archive.read("config.json"))
    assert config["class_name"] == "Functional"
