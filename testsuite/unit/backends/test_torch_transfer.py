"""Weights to begin with: layouts of the libraries, other bands, other classes, other tasks; freezing."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import torchvision
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch.networks import SEGMENTATION, TRANSFORMER, published
from rlearndeep.backends.torch.transfer import SENTINEL_2, Target, Tuning, initial_weights
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.options import Settings, from_options, resolved
from rlearndeep.model import ModelCard, Network, write_card
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass
from rlearndeep.scene.spectrum import RGB, shared_out
from safetensors.torch import save_file

BANDS = (Band("n", "nir"), Band("r", "L8_4"), Band("g", "S2_3"), Band("b", "blue"))
CLASSES = ClassTable((MapClass(1, "water"), MapClass(2, "forest"), MapClass(3, "town")))
UNET = Network("unet", 4, 3, {"encoder": "resnet18"})


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)


def target(network: Network, bands: tuple[Band, ...] = BANDS, classes: ClassTable = CLASSES) -> Target:
    return Target(network, bands, classes)


def begun(choice: Path | str, goal: Target) -> dict[str, torch.Tensor]:
    """State of a network that begins with weights."""
    module = backend.build(goal.network)
    initial = initial_weights(str(choice), goal)
    assert initial is not None
    initial.load_into(module)
    return module.state_dict()


def model(directory: Path, network: Network, bands: tuple[Band, ...], classes: ClassTable, unit: str) -> Path:
    """A model directory with random weights."""
    directory.mkdir()
    module = backend.build(network)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    backend.save(module, directory / backend.FILE)
    card = ModelCard(
        backend="torch",
        weights=backend.FILE,
        network=network,
        unit=unit,
        bands=bands,
        normalization=Normalization("none"),
        classes=classes,
        patch=(32, 32),
        resolution=(1.0, 1.0),
    )
    write_card(directory, card, "example")
    return directory


@pytest.mark.parametrize("taken", ((1, 0, None, 2, None), (None,), (0,), (2, 1, 0), (None,) * 4, (None, 1)))
def test_a_grey_image_gives_the_same_activation(taken: tuple[int | None, ...]) -> None:
    filters = torch.randn(8, 3, 5, 5, dtype=torch.float64)
    other = torch.from_numpy(shared_out(filters.numpy(), taken, axis=1))
    grey = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    before = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), filters)
    after = torch.nn.functional.conv2d(grey.expand(-1, len(taken), -1, -1), other)
    torch.testing.assert_close(after, before)


def test_bands_with_a_counterpart_take_its_filters_and_the_others_share_what_is_left() -> None:
    filters = torch.randn(8, 3, 5, 5)
    other = torch.from_numpy(shared_out(filters.numpy(), (None, 0, None), axis=1))
    assert torch.equal(other[:, 1], filters[:, 0])
    torch.testing.assert_close(other[:, 0], (filters[:, 1] + filters[:, 2]) / 2)
    assert torch.equal(other[:, 0], other[:, 2])
    assert not shared_out(filters.numpy(), (0, 1, 2, None), axis=1)[:, 3].any()


@pytest.mark.parametrize(
    ("name", "suffix", "wrap"),
    (
        ("torchvision", "pth", lambda state: state),
        ("checkpoint", "pt", lambda state: {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}),
        ("torchgeo", "pth", lambda state: {k: v for k, v in state.items() if not k.startswith("fc.")}),
        ("lightning", "ckpt", lambda state: {"state_dict": {f"model.backbone.{k}": v for k, v in state.items()}}),
        ("encoder", "safetensors", lambda state: {f"encoder.{k}": v for k, v in state.items()}),
    ),
)
@pytest.mark.parametrize(("network", "prefix"), ((UNET, "inner.encoder."), (Network("resnet18", 4, 3), "inner.")))
def test_a_file_in_any_layout_of_a_residual_network_is_taken(
    tmp_path: Path, name: str, suffix: str, wrap: Any, network: Network, prefix: str
) -> None:
    state = torchvision.models.resnet18().state_dict()
    file = tmp_path / f"{name}.{suffix}"
    if suffix == "safetensors":
        save_file(wrap(state), file)
    else:
        torch.save(wrap(state), file)
    found = begun(file, target(network))
    for key in ("layer1.0.conv1.weight", "layer4.1.bn2.running_var", "layer3.0.downsample.0.weight"):
        assert torch.equal(found[prefix + key], state[key])
    first = found[prefix + "conv1.weight"]
    assert torch.equal(first[:, 1:], state["conv1.weight"])  # red, green, blue by semantic label
    assert not first[:, 0].any()


def test_a_file_of_thirteen_bands_is_sentinel_2(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", in_chans=13).state_dict()
    save_file(state, tmp_path / "s2.safetensors")
    bands = (Band("a", "S2_8A"), Band("b", "S2_2"))
    first = begun(tmp_path / "s2.safetensors", target(Network("resnet18", 2, 3), bands))["inner.conv1.weight"]
    left = [number for number, band in enumerate(SENTINEL_2) if band.semantic_label not in ("S2_8A", "S2_2")]
    rest = state["conv1.weight"][:, left].sum(dim=1) / 2
    torch.testing.assert_close(first[:, 0], state["conv1.weight"][:, 8] + rest)
    torch.testing.assert_close(first[:, 1], state["conv1.weight"][:, 1] + rest)


def test_weights_of_another_network_are_refused_with_both_sides(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        DeepLearningError, match=r"'fpn \(resnet50\)'; \d+ of its \d+ .* there are conv1.weight"
    ) as caught:
        begun(tmp_path / "w.pth", target(Network("fpn", 4, 3, {"encoder": "resnet50"})))
    assert "\n" not in str(caught.value)


class Hostile:
    """Its unpickling would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_file_that_holds_code_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Hostile(tmp_path / "was_here")}))
    torch.save({"a": Hostile(tmp_path / "was_here")}, tmp_path / "v.pth")
    for name in ("w.pth", "v.pth"):
        with pytest.raises(DeepLearningError, match="state dictionary"):
            begun(tmp_path / name, target(UNET))
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize("content", (b"", b"x" * 50, b"\x00" * 400))
@pytest.mark.parametrize("name", ("a.safetensors", "a.pth"))
def test_a_file_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeepLearningError, match="is not") as caught:
        begun(tmp_path / name, target(UNET))
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    state["layer1.0.conv1.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(DeepLearningError, match="finite"):
        begun(tmp_path / "w.pth", target(UNET))


def test_a_path_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeepLearningError, match="does not exist"):
        begun(tmp_path / "absent", target(UNET))
    with pytest.raises(DeepLearningError, match=r"has no model\.json"):
        begun(tmp_path, target(UNET))


def test_a_model_goes_on_with_all_of_itself(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", UNET, BANDS, CLASSES, "cell")
    other = backend.load(directory, dataclasses.replace(_card(directory)), "cpu", "32")
    found = begun(directory, target(UNET))
    module = backend.build(UNET)
    module.load_state_dict(found)
    batch = np.random.default_rng(1).normal(size=(2, 4, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(module.eval()(torch.from_numpy(batch)), dim=1).numpy()
    np.testing.assert_allclose(other.predict(batch), expected, atol=1e-4)


def _card(directory: Path) -> ModelCard:
    from rlearndeep.model import read_card

    return read_card(directory)


def test_known_classes_keep_their_rows_and_new_ones_begin_anew(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", UNET, BANDS, CLASSES, "cell")
    classes = ClassTable((MapClass(0, "new"), MapClass(2, "forest"), MapClass(3, "village"), MapClass(9, "x")))
    network = dataclasses.replace(UNET, classes=4)
    found = begun(directory, target(network, classes=classes))
    before = backend.build(UNET).state_dict() | _tensors(directory)
    head = "inner.segmentation_head.0.weight"
    assert torch.equal(found[head][1], before[head][1])
    assert all(not torch.equal(found[head][row], before[head][known]) for row in (0, 2, 3) for known in range(3))
    assert torch.equal(found["inner.decoder.blocks.0.conv1.0.weight"], before["inner.decoder.blocks.0.conv1.0.weight"])


def _tensors(directory: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(directory / backend.FILE))


def test_bands_of_a_model_are_found_in_any_order(tmp_path: Path) -> None:
    directory = model(tmp_path / "m", UNET, BANDS, CLASSES, "cell")
    found = begun(directory, target(UNET, bands=BANDS[::-1]))["inner.encoder.conv1.weight"]
    assert torch.equal(found, _tensors(directory)["inner.encoder.conv1.weight"].flip(1))


@pytest.mark.parametrize("encoder", ("resnet18", "tu-resnet18"))
def test_a_classifiers_trunk_becomes_an_encoder_and_back(tmp_path: Path, encoder: str) -> None:
    trunk, unet = Network("resnet18", 4, 3, {"size": [32, 32]}), Network("unet", 4, 3, {"encoder": encoder, "depth": 5})
    prefix = "inner.encoder." if encoder == "resnet18" else "inner.encoder.model."
    name = "layer4.1.conv2.weight"
    classifier = model(tmp_path / "c", trunk, BANDS, CLASSES, "patch")
    assert torch.equal(begun(classifier, target(unet))[prefix + name], _tensors(classifier)["inner." + name])
    segmenter = model(tmp_path / "s", unet, BANDS, CLASSES, "cell")
    assert torch.equal(begun(segmenter, target(trunk))["inner." + name], _tensors(segmenter)[prefix + name])


@pytest.mark.parametrize("architecture", ("mlp", "cnn", "fcn_dilated"))
def test_own_networks_go_on_too(tmp_path: Path, architecture: str) -> None:
    network = Network(architecture, 4, 3)
    directory = model(tmp_path / "m", network, BANDS, CLASSES, "cell")
    found = begun(directory, target(network))
    assert all(torch.equal(found[name], tensor) for name, tensor in _tensors(directory).items())


def test_weights_that_cannot_be_downloaded_name_the_file_and_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlearndeep.backends.torch.pretrained._is_reachable", lambda address: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent/cache")
    for network, file in ((UNET, "smp-hub/resnet18.imagenet"), (Network("convnext_atto", 4, 3), "timm/convnext_atto")):
        with pytest.raises(DeepLearningError, match=rf"model.safetensors of {file}.*weights=FILE.*cache") as caught:
            initial_weights("imagenet", target(network))
        assert "\n" not in str(caught.value)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    with pytest.raises(DeepLearningError, match="networks of the libraries"):
        initial_weights("imagenet", target(Network("mlp", 4, 3)))


@pytest.mark.parametrize("architecture", ("dpt", "unet", "vit_tiny_patch16_224.augreg_in21k"))
def test_published_weights_are_those_that_the_name_says(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, **options: Any) -> None:
        if options.get("pretrained"):
            asked.append(name)
            raise RuntimeError("no connection")
        return made(name, **options)

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    encoder = {"dpt": "vit_tiny_patch16_224.augreg_in21k", "unet": "resnet18.a1_in1k"}.get(architecture)
    with pytest.raises(RuntimeError, match="no connection"):
        published(Network(architecture, 3, 3, {"encoder": f"tu-{encoder}"} if encoder else {}))
    assert asked == [encoder or architecture]


def test_published_weights_are_taken_from_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    save_file({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "model.safetensors")
    monkeypatch.setattr(
        "segmentation_models_pytorch.encoders.hf_hub_download", lambda *_, **__: str(tmp_path / "model.safetensors")
    )
    found = begun("imagenet", target(UNET))
    assert torch.equal(found["inner.encoder.conv1.weight"][:, 1:], state["conv1.weight"])
    assert torch.equal(found["inner.encoder.layer2.0.bn1.bias"], state["layer2.0.bn1.bias"])


def test_terms_of_weights_that_are_not_free_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlearndeep.backends.torch import pretrained

    monkeypatch.setattr(pretrained, "published", lambda network: {})
    unet = Network("unet", 4, 3, {"encoder": "mit_b0"})
    assert "non-commercial" in pretrained.imagenet_weights(unet)[1]
    assert pretrained.imagenet_weights(Network("mambaout_femto", 4, 3))[1] == ""
    mobile = Network("unet", 4, 3, {"encoder": "mobileone_s0"})
    assert pretrained.imagenet_weights(mobile)[1] == "mobileone-license" == licence_in_timm("mobileone_s0")
    assert "cc-by-nc" in pretrained.imagenet_weights(Network("convnextv2_atto", 4, 3))[1]


def licence_in_timm(name: str) -> str:
    return timm.get_pretrained_cfg(name).license


def encoder_names(network: Network) -> set[str]:
    return {name for name in backend.build(network).state_dict() if name.startswith("inner.encoder.")}


def trained(tmp_path: Path, epochs: int, **values: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State before and after training a small U-Net that begins with a model."""
    from rlearndeep.learning.feeding import Sites
    from synthetic_patches import CLASSES as KNOWN
    from synthetic_patches import make_patches
    from test_torch_fitting import fitted

    sites = Sites.of([make_patches(tmp_path / "patches", size=16, count=16, shares=(1.0, 0.0, 0.0))])
    normalization = Normalization.from_statistics("band", sites.statistics)
    network = Network("unet", 4, 3, {"encoder": "resnet18", "depth": 3})
    directory = model(tmp_path / "m", network, sites.bands, KNOWN, "cell")
    initial = initial_weights(str(directory), Target(network, sites.bands, KNOWN))
    result = fitted(
        tmp_path,
        sites.part("training", normalization),
        None,
        architecture="unet",
        network={"encoder": "resnet18", "depth": 3},
        epochs=epochs,
        batch_size=4,
        weights=str(directory),
        initial=initial,
        **values,
    )
    return _tensors(directory), result.module.state_dict()


def test_a_frozen_encoder_does_not_move_nor_do_its_statistics(tmp_path: Path) -> None:
    before, after = trained(tmp_path, 1, freeze="encoder")
    encoder = {name for name in after if name.startswith("inner.encoder.")}
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    assert any(not torch.equal(before[name], after[name]) for name in set(after) - encoder)


def test_a_thawed_encoder_learns(tmp_path: Path) -> None:
    before, after = trained(tmp_path, 2, freeze="1", patience=0)
    encoder = [name for name in after if name.startswith("inner.encoder.layer1")]
    assert all(not torch.equal(before[name], after[name]) for name in encoder)


def test_the_encoder_learns_more_slowly_and_a_widened_first_layer_does_not(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    initial = initial_weights(str(tmp_path / "w.pth"), target(UNET))
    module = backend.build(UNET)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    full, slow = Tuning.of(UNET, initial, "none", 0.1).groups(module, 0.01)
    assert (full["lr"], slow["lr"]) == (0.01, 0.001)
    assert all(names[id(p)].startswith("inner.encoder.") for p in slow["params"])
    assert "inner.encoder.conv1.weight" in {names[id(p)] for p in full["params"]}
    assert len(full["params"]) + len(slow["params"]) == len(names)
    (only,) = Tuning.of(UNET, None, "none", 1.0).groups(module, 0.01)
    assert [id(p) for p in only["params"]] == [id(p) for p in module.parameters()]


def test_freezing_goes_by_epochs() -> None:
    module = backend.build(UNET).train()
    tuning = Tuning(frozenset(encoder_names(UNET)), 0.1, 2)
    norm = module.inner.encoder.bn1
    for epoch, learns in ((0, False), (1, False), (2, True)):
        module.train()
        tuning.begin_epoch(module, epoch)
        assert norm.training == norm.weight.requires_grad == learns
        assert module.inner.decoder.blocks[0].conv1[1].training


@pytest.mark.parametrize(
    ("options", "fragment"),
    (
        ({"freeze": "encoder"}, "weights=none"),
        ({"freeze": "0", "weights": "imagenet"}, "got '0'"),
        ({"freeze": "half", "weights": "imagenet"}, "got 'half'"),
        ({"encoder_rate": "0.5"}, "encoder_rate= needs"),
        ({"encoder_rate": "2", "weights": "imagenet"}, "encoder_rate="),
    ),
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str], fragment: str) -> None:
    with pytest.raises(DeepLearningError, match=fragment):
        from_options(options)


def test_an_encoder_with_weights_learns_at_a_tenth_of_the_rate() -> None:
    assert resolved(Settings(weights="imagenet"), "cell", (64, 64), 100).encoder_rate == 0.1
    assert resolved(Settings(), "cell", (64, 64), 100).encoder_rate == 1.0


@pytest.mark.parametrize("architecture", sorted(set(SEGMENTATION) - {TRANSFORMER}))
def test_every_segmentation_network_takes_an_encoder(tmp_path: Path, architecture: str) -> None:
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, tmp_path / "w.pth")
    network = Network(architecture, 3, 3, {"encoder": "resnet18"})
    found = begun(tmp_path / "w.pth", target(network, RGB))
    assert torch.equal(found["inner.encoder.conv1.weight"], state["conv1.weight"])


def test_only_what_came_with_the_weights_is_frozen_or_slow(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    network = Network("unet", 3, 3, {"encoder": "resnet34"})
    initial = initial_weights(str(tmp_path / "w.pth"), target(network, RGB))
    assert initial is not None and "80 of its encoder do not, begin at random" in initial.note
    tuning = Tuning.of(network, initial, "encoder", 1.0)
    assert tuning.encoder <= set(initial.arrays)
    module = backend.build(network).train()
    tuning.begin_epoch(module, 0)
    here, missing = module.inner.encoder.layer1[1], module.inner.encoder.layer1[2]
    assert not here.conv1.weight.requires_grad and not here.bn1.training
    assert missing.conv1.weight.requires_grad and missing.bn1.training


def test_a_frozen_normalisation_needs_no_count_of_batches(tmp_path: Path) -> None:
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if not k.endswith("tracked")}
    torch.save(state, tmp_path / "w.pth")
    module = backend.build(Network("unet", 3, 3)).train()
    initial = initial_weights(str(tmp_path / "w.pth"), target(Network("unet", 3, 3), RGB))
    Tuning.of(Network("unet", 3, 3), initial, "encoder", 1.0).begin_epoch(module, 0)
    assert not any(layer.training for layer in module.modules() if layer is module.inner.encoder.bn1)


def test_a_frozen_normalisation_of_timm_that_has_an_activation_in_it_keeps_its_statistics() -> None:
    network = Network("unet", 4, 3, {"encoder": "tu-mobilenetv3_small_050"})
    module = backend.build(network).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    Tuning(frozenset(encoder_names(network)), 1.0, None).begin_epoch(module, 0)
    module(torch.randn(2, 4, 64, 64))
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and not moved & encoder_names(network)


@pytest.mark.parametrize(("bands", "frozen"), ((RGB, True), (RGB[::-1], True), ((*RGB, Band("n", "nir")), False)))
def test_bands_in_another_order_are_no_new_ones(tmp_path: Path, bands: tuple[Band, ...], frozen: bool) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    network = Network("resnet18", len(bands), 3)
    initial = initial_weights(str(tmp_path / "w.pth"), target(network, bands))
    assert ("inner.conv1.weight" in Tuning.of(network, initial, "encoder", 1.0).encoder) == frozen


def varied(module: torch.nn.Module) -> torch.nn.Module:
    """No scale is 1, no statistic is that of a network that never learned."""
    for tensor in module.state_dict().values():
        if (tensor.is_floating_point() and tensor.dim() < 2) or tensor.dim() == 3:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize(
    ("theirs", "ours", "side"),
    (
        ("mobilenet_v2", "mobilenetv2_100", 32),
        ("efficientnet_b0", "efficientnet_b0", 32),
        ("convnext_tiny", "convnext_tiny", 32),
        ("swin_t", "swin_t", 224),
    ),
)
@pytest.mark.parametrize("suffix", ("pth", "safetensors"))
def test_a_network_of_torchvision_is_the_same_in_timm(
    tmp_path: Path, theirs: str, ours: str, side: int, suffix: str
) -> None:
    twin = varied(torchvision.models.get_model(theirs, num_classes=3))
    state = dict(twin.state_dict())
    if suffix == "pth":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    else:
        save_file(state, tmp_path / "w.safetensors")
    network = Network(ours, 3, 3, {"size": [side, side]})
    initial = initial_weights(str(tmp_path / f"w.{suffix}"), target(network, RGB))
    module = backend.build(network).eval()
    assert initial is not None
    initial.load_into(module)
    layers = list(module.inner.get_classifier().parameters())
    with torch.no_grad():
        for parameter, (_, tensor) in zip(layers, list(state.items())[-2:], strict=True):
            parameter.copy_(tensor)
        batch = torch.randn(1, 3, side, side)
        torch.testing.assert_close(module(batch), twin(batch))
    encoder = "tu-" + ("swin_tiny_patch4_window7_224" if ours == "swin_t" else ours)
    unet = Network("unet", 3, 3, {"encoder": encoder})
    begins = initial_weights(str(tmp_path / f"w.{suffix}"), target(unet, RGB))
    assert begins is not None and not {
        name for name in encoder_names(unet) - set(begins.arrays) if not name.endswith("num_batches_tracked")
    }


def test_a_file_of_timm_fits_an_encoder_whose_steps_are_named_otherwise(tmp_path: Path) -> None:
    state = timm.create_model("convnext_atto").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    found = begun(tmp_path / "w.safetensors", target(Network("unet", 3, 3, {"encoder": "convnext_atto"}), RGB))
    name = "blocks.0.mlp.fc1.weight"
    assert torch.equal(found[f"inner.encoder.model.stages_1.{name}"], state[f"stages.1.{name}"])


def test_a_refusal_names_the_file_that_would_fit(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(DeepLearningError, match=r"a file of timm for swin_tiny.* or of torchvision for swin_t"):
        begun(tmp_path / "w.pth", target(Network("swin_t", 3, 3), RGB))
    with pytest.raises(DeepLearningError, match="or a file of timm for tf_efficientnetv2_b0"):
        begun(tmp_path / "w.pth", target(Network("unet", 3, 3, {"encoder": "tu-tf_efficientnetv2_b0"}), RGB))


@pytest.mark.parametrize("size", ((32, 64), (64, 64), (224, 224), (32, 1568)))
def test_what_a_transformer_knows_of_positions_is_kept_for_patches_of_another_size(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    rows = torch.arange(14.0)[:, None].expand(14, 14).reshape(-1, 1)
    state["pos_embed"][0, 1:] = rows + torch.arange(192.0)
    torch.save(state, tmp_path / "w.pth")
    network = Network("vit_tiny_patch16_224", 3, 3, {"size": list(size)})
    found = begun(tmp_path / "w.pth", target(network, RGB))["inner.pos_embed"]
    assert torch.equal(found[0, 0], state["pos_embed"][0, 0])
    grid = found[0, 1:].reshape(size[0] // 16, size[1] // 16, 192)
    torch.testing.assert_close(grid, grid[:, :1].expand_as(grid))
    assert (grid[1:] > grid[:-1]).all() and grid[0, 0, 0] >= -0.5 and abs(float(grid.mean()) - 6.5 - 95.5) < 1e-3


def test_relative_positions_keep_their_meaning_in_smaller_windows(tmp_path: Path) -> None:
    state = timm.create_model("swin_tiny_patch4_window7_224").state_dict()
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            table.copy_(torch.arange(-6.0, 7.0).repeat(13)[:, None].expand_as(table))
    torch.save(state, tmp_path / "w.pth")
    network = Network("swin_t", 3, 3, {"size": [64, 64]})
    initial = initial_weights(str(tmp_path / "w.pth"), target(network, RGB))
    assert initial is not None and "at random" not in initial.note
    table = initial.arrays["inner.layers.2.blocks.0.attn.relative_position_bias_table"]
    assert table.shape == (49, 12)
    columns = table[:, 0].reshape(7, 7)
    torch.testing.assert_close(columns[:, 2:5], torch.arange(-1.0, 2.0).expand(7, 3), atol=0.05, rtol=0)
    assert (columns.diff(dim=1) > 0).all()


def test_positions_of_patches_that_were_no_squares_begin_anew(tmp_path: Path) -> None:
    network = Network("vit_tiny_patch16_224", 4, 3, {"size": [64, 64]})
    directory = model(tmp_path / "m", network, BANDS, CLASSES, "patch")
    card = dataclasses.replace(
        _card(directory), patch=(32, 128), network=dataclasses.replace(network, options={"size": [32, 128]})
    )
    write_card(directory, card, "example")
    small = dataclasses.replace(network, options={"size": [32, 32]})
    initial = initial_weights(str(directory), target(small))
    assert initial is not None and "inner.pos_embed" not in initial.arrays
    assert "1 of its encoder do not" in initial.note
