"""What a network of several sources begins with, and which of its parts are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.networks import noise_of
from rlearndeep.backends.torch.transfer import Target, Tuning, initial_weights
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, ModelSource, Network, write_card
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.inputs import Inputs
from safetensors.torch import load_file, save_file

BANDS = (Band("r", "red"), Band("g", "green"), Band("b", "blue"))
CLASSES = ClassTable((MapClass(1, "water"), MapClass(2, "forest")))
AUXILIARY = {"name": "auxiliary1", "bands": 1, "series": False}
SERIES = {"name": "series", "bands": 2, "series": True}
FUSION = Network("fusion", 3, 2, {"encoder": "resnet18", "depth": 5, "filters": 8, "sources": [AUXILIARY, SERIES]})
FIRST = "inner.branches.series.down.0.0.weight"


def changed(network: Network, **options: Any) -> Network:
    return replace(network, options={**network.options, **options})


def target(network: Network) -> Target:
    return Target(network, BANDS, CLASSES)


def model(
    directory: Path, network: Network, bands: Mapping[str, tuple[Band, ...]] | None = None
) -> tuple[Path, dict[str, torch.Tensor]]:
    """A model directory with random weights, and these; bands are those of the branches."""
    directory.mkdir()
    module = backend.build(network)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    backend.save(module, directory / backend.FILE)
    sources = tuple(
        ModelSource(
            source["name"],
            (bands or {}).get(source["name"]) or tuple(Band(f"x{number}") for number in range(source["bands"])),
            (4, 4),
            (9.0, 9.0),
            dates=("2020-01-01",) if source["series"] else (),
        )
        for source in network.options.get("sources", ())
    )
    normalization = Normalization("none")
    unit = network.options.get("unit", "cell")
    card = ModelCard(
        "torch", backend.FILE, network, unit, BANDS, normalization, CLASSES, (32, 32), (1.0, 1.0), sources=sources
    )
    write_card(directory, card, "example")
    return directory, load_file(str(directory / backend.FILE))


def begun(choice: Path | str, network: Network) -> dict[str, torch.Tensor]:
    module = backend.build(network)
    initial = initial_weights(str(choice), target(network))
    assert initial is not None
    initial.load_into(module)
    return module.state_dict()


def test_a_fusion_model_goes_on_with_all_of_itself(tmp_path: Path) -> None:
    directory, tensors = model(tmp_path / "m", FUSION)
    found = begun(directory, FUSION)
    assert found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_what_fits_is_taken_and_other_branches_begin_anew(tmp_path: Path) -> None:
    directory, tensors = model(tmp_path / "m", FUSION)
    network = changed(FUSION, sources=[AUXILIARY, {**SERIES, "bands": 5}])
    found = begun(directory, network)
    name = "inner.branches.auxiliary1.down.0.0.weight"
    assert torch.equal(found[name], tensors[name]) and found[FIRST].shape[1] == 6
    assert torch.equal(found["inner.branches.series.down.1.0.weight"], tensors["inner.branches.series.down.1.0.weight"])
    learns = Tuning.of(network, initial_weights(str(directory), target(network)), "encoder", 0.1).encoder
    assert name in learns and "inner.encoder.conv1.weight" in learns and FIRST not in learns


def test_the_reference_takes_a_network_of_one_source(tmp_path: Path) -> None:
    directory, tensors = model(tmp_path / "m", Network("unet", 3, 2, {"encoder": "resnet18", "depth": 5}))
    found = begun(directory, FUSION)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    tuning = Tuning.of(FUSION, initial_weights(str(directory), target(FUSION)), "encoder", 0.1)
    assert "inner.encoder.conv1.weight" in tuning.encoder
    assert not any(name.startswith(("inner.branches.", "inner.decoder.")) for name in tuning.encoder)


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_published_weights_and_files_are_for_the_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unit: str
) -> None:
    state = torchvision.models.resnet18().state_dict()
    file = tmp_path / "model.safetensors"
    save_file({key: value for key, value in state.items() if not key.startswith("fc.")}, file)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: str(file))
    network = changed(FUSION, unit=unit)
    for choice in ("imagenet", file):
        assert torch.equal(begun(choice, network)["inner.encoder.conv1.weight"], state["conv1.weight"])


def test_branches_alone_serve_a_network_with_a_reference_and_back(tmp_path: Path) -> None:
    alone = changed(FUSION, reference=False)
    for number, (origin, goal) in enumerate(((alone, FUSION), (FUSION, alone))):
        directory, tensors = model(tmp_path / str(number), origin)
        assert torch.equal(begun(directory, goal)[FIRST], tensors[FIRST])


HEIGHT, THERMAL, NEAR = Band("dsm"), (Band("61", "L7_61"), Band("62", "L7_62")), (Band("ndvi"), Band("evi"))
OFFERED = {"auxiliary1": (HEIGHT,), "auxiliary2": THERMAL, "series": NEAR}
WANTED = {"auxiliary1": THERMAL[::-1], "auxiliary2": (HEIGHT,), "series": NEAR[::-1]}
SERVES = {"auxiliary1": "auxiliary2", "auxiliary2": "auxiliary1", "series": "series"}


def of_branches(branches: Mapping[str, tuple[Band, ...]], unit: str = "cell") -> Network:
    """A network with a branch for each of some sources."""
    sources = [{"name": name, "bands": len(own), "series": name == "series"} for name, own in branches.items()]
    return changed(FUSION, sources=sources, depth=3, unit=unit)


def seen_by_branches(branches: Mapping[str, tuple[Band, ...]]) -> Target:
    return Target(of_branches(branches), BANDS, CLASSES, branches=branches)


@pytest.mark.parametrize("unit", ("cell", "patch"))
def test_a_source_of_another_number_and_order_of_bands_gives_the_same_answer(tmp_path: Path, unit: str) -> None:
    directory, tensors = model(tmp_path / "m", of_branches(OFFERED, unit), OFFERED)
    offered, wanted = (of_branches(branches, unit) for branches in (OFFERED, WANTED))
    before, after = backend.build(offered), backend.build(wanted)
    before.load_state_dict(tensors)
    initial = initial_weights(str(directory), Target(wanted, BANDS, CLASSES, branches=WANTED))
    assert initial is not None and not initial.renewed and "knows 2 of 2 classes" in initial.note
    initial.load_into(after)
    inputs = noise_of(offered, 3, (32, 32))
    assert isinstance(inputs, Inputs)
    further = {name: inputs.further[theirs] for name, theirs in SERVES.items()}
    for name in ("auxiliary1", "series"):
        further[name] = replace(further[name], values=further[name].values.flip(-3))
    with torch.inference_mode():
        expected, found = before.eval()(inputs), after.eval()(replace(inputs, further=further))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_branch_that_meets_another_band_keeps_the_rest_and_learns(tmp_path: Path) -> None:
    directory, tensors = model(tmp_path / "m", of_branches(OFFERED), OFFERED)
    goal = seen_by_branches({**OFFERED, "auxiliary2": (*THERMAL, Band("63", "L7_63"))})
    initial = initial_weights(str(directory), goal)
    assert initial is not None and "the first layers know 8 of 9 bands" in initial.note
    name = "inner.branches.auxiliary2.down.0.0.weight"
    filters = initial.arrays[name]
    assert torch.equal(filters[:, [0, 1, 3]], tensors[name]) and not filters[:, 2].any()
    learns = Tuning.of(goal.network, initial, "encoder", 1.0).encoder
    assert name not in learns and "inner.branches.auxiliary2.down.0.3.weight" in learns


def test_a_source_that_is_left_out_leaves_the_others_their_branches(tmp_path: Path) -> None:
    directory, tensors = model(tmp_path / "m", of_branches(OFFERED, "patch"), OFFERED)
    branches = {"auxiliary1": THERMAL}
    goal = Target(of_branches(branches, "patch"), BANDS, CLASSES, branches=branches)
    initial = initial_weights(str(directory), goal)
    assert initial is not None and "the last layer knows 0 of 2 classes" in initial.note
    for end in ("branches.{}.down.0.0.weight", "branches.{}.around.bias", "absent.{}"):
        known = tensors["inner." + end.format("auxiliary2")]
        assert torch.equal(initial.arrays["inner." + end.format("auxiliary1")], known)
    branches = {name: (HEIGHT,) for name in ("auxiliary1", "auxiliary2", "auxiliary3")}
    goal = Target(of_branches(branches, "patch"), BANDS, CLASSES, branches=branches)
    initial = initial_weights(str(directory), goal)
    assert initial is not None and "the last layer knows 0 of 2 classes" in initial.note


def test_weights_without_anything_that_fits_are_refused(tmp_path: Path) -> None:
    alone = changed(FUSION, reference=False)
    with pytest.raises(DeepLearningError, match="networks of the libraries"):
        initial_weights("imagenet", target(alone))
    directory, _ = model(tmp_path / "m", Network("cnn", 3, 2, {"unit": "patch"}))
    for network in (alone, FUSION):
        with pytest.raises(DeepLearningError, match="must fit the encoder of 'fusion") as caught:
            initial_weights(str(directory), target(network))
        assert "\n" not in str(caught.value)
