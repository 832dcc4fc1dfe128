"""The contract that every architecture keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processor import KERNELS_IN_BFLOAT16
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch import devices, machinery, networks, prediction
from rlearndeep.backends.torch.activations import ActivatedConvolution
from rlearndeep.backends.torch.folding import fold_batch_norm
from rlearndeep.backends.torch.upsampling import DoublingConvolution
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.model import ModelCard, Network
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass

SEGMENTATION = (
    "unet",
    "unetplusplus",
    "manet",
    "linknet",
    "fpn",
    "pspnet",
    "pan",
    "deeplabv3",
    "deeplabv3plus",
    "segformer",
    "upernet",
    "fcn_dilated",
    "mlp",
)
CLASSIFIERS = ("cnn", "resnet18", "convnext_atto", "efficientnet_b0", "swin_t")
SIZE = (33, 19)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(architecture: str, bands: int = 4, classes: int = 3) -> Network:
    options = {"size": list(SIZE)} if architecture in CLASSIFIERS else {}
    return Network(architecture, bands, classes, {} if architecture == "cnn" else options)


def card(built: Network, size: tuple[int, int] = SIZE) -> ModelCard:
    return ModelCard(
        backend="torch",
        weights=backend.FILE,
        network=built,
        unit="patch" if built.architecture in CLASSIFIERS else "cell",
        bands=tuple(Band(f"b{number}") for number in range(built.bands)),
        normalization=Normalization("none"),
        classes=ClassTable(tuple(MapClass(number, "") for number in range(built.classes))),
        patch=size,
        resolution=(1.0, 1.0),
    )


def images(count: int, bands: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, bands, *size)).astype(np.float32)


def trained_a_little(module: torch.nn.Module, bands: int) -> torch.nn.Module:
    """Normalisation layers have statistics other than 0 and 1, as after training."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    with torch.no_grad():
        module.train()(torch.from_numpy(images(4, bands)))
    return module.eval()


@pytest.mark.parametrize("architecture", SEGMENTATION + CLASSIFIERS)
def test_an_architecture_trains_predicts_and_survives_saving(architecture: str, tmp_path: Path) -> None:
    built = network(architecture)
    module = trained_a_little(backend.build(built), built.bands)
    backend.save(module, tmp_path / backend.FILE)
    predictor = backend.load(tmp_path, card(built), "cpu", "32")
    batch = images(3, built.bands)
    with torch.inference_mode():
        expected = torch.softmax(module(torch.from_numpy(batch)), dim=1).numpy()
    scores = predictor.predict(batch)
    shape = (3, 3) if architecture in CLASSIFIERS else (3, 3, *SIZE)
    assert scores.shape == shape and scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_array_equal(scores.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(predictor.predict(batch[:1]), expected[:1], atol=1e-4)
    assert backend.answers(architecture) in ("patch" if architecture in CLASSIFIERS else "cell", "either")


@pytest.mark.parametrize("bands", (1, 14))
@pytest.mark.parametrize("architecture", ("unet", "fcn_dilated", "mlp", "cnn", "resnet18", "swin_t"))
def test_any_number_of_bands_is_accepted(architecture: str, bands: int) -> None:
    module = backend.build(network(architecture, bands)).eval()
    with torch.inference_mode():
        assert module(torch.from_numpy(images(1, bands))).shape[:2] == (1, 3)


@pytest.mark.parametrize("size", ((1, 1), (1, 5), (32, 32), (31, 65)))
@pytest.mark.parametrize("architecture", ("unet", "fcn_dilated", "mlp", "cnn", "resnet18"))
def test_any_size_is_accepted_and_kept(architecture: str, size: tuple[int, int]) -> None:
    module = backend.build(network(architecture)).eval()
    with torch.inference_mode():
        scores = module(torch.from_numpy(images(1, 4, size)))
    assert scores.shape == ((1, 3) if architecture in CLASSIFIERS else (1, 3, *size))


def test_the_perceptron_sees_one_cell_only() -> None:
    module = backend.build(network("mlp")).eval()
    one, other = images(2, 4)
    other[:, 5, 7] = one[:, 5, 7]
    with torch.inference_mode():
        scores = module(torch.from_numpy(np.stack([one, other])))
    assert torch.equal(scores[0, :, 5, 7], scores[1, :, 5, 7])
    assert not torch.equal(scores[0], scores[1])


def test_the_perceptron_has_the_layers_asked_for() -> None:
    module = backend.build(Network("mlp", 10, 12, {"hidden": [256, 128], "dropout": 0.2}))
    widths = [(layer.in_channels, layer.out_channels) for layer in module if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [(10, 256), (256, 128), (128, 12)]
    assert sum(isinstance(layer, torch.nn.Dropout) for layer in module) == 2


def test_the_perceptron_answers_for_a_patch_with_the_mean_of_its_cells() -> None:
    module = backend.build(Network("mlp", 4, 3, {"unit": "patch"})).eval()
    batch = torch.from_numpy(images(2, 4))
    with torch.inference_mode():
        torch.testing.assert_close(module(batch), module.inner(batch).mean(dim=(2, 3)))


def test_the_dilated_network_is_that_of_its_paper() -> None:
    module = backend.build(network("fcn_dilated", bands=5, classes=7))
    convolutions = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.kernel_size[0] for layer in convolutions] == [5, 3, 3, 3, 3, 3, 3, 1]
    assert [layer.dilation[0] for layer in convolutions[:-1]] == [2] * 7
    assert [layer.out_channels for layer in convolutions] == [64] * 7 + [7]
    assert convolutions[-1].in_channels == 7 * 64
    kinds = [type(layer).__name__ for layer in module.blocks[0]]
    assert kinds == ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]


def test_one_block_needs_one_kernel_only() -> None:
    assert len(backend.build(Network("fcn_dilated", 4, 3, {"blocks": 1})).blocks) == 1


def test_own_networks_are_built_without_the_libraries_of_others() -> None:
    """They take longer to import than a small map takes to predict."""
    script = (
        "import sys; from rlearndeep.backends import torch; from rlearndeep.model import Network\n"
        "for name in ('mlp', 'cnn', 'fcn_dilated'): torch.build(Network(name, 3, 2, {}))\n"
        "print(*{'timm', 'torchvision', 'lightning_fabric', 'sympy', 'scipy'} & set(sys.modules))"
    )
    library = str(Path(networks.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": library},
    )
    assert done.stdout.strip() == ""


def test_parameters_of_the_dilated_network_are_per_block() -> None:
    built = Network("fcn_dilated", 4, 3, {"filters": 16, "kernel": [3], "blocks": 4, "dilations": [1, 2, 3]})
    convolutions = [layer for layer in backend.build(built).modules() if isinstance(layer, torch.nn.Conv2d)][:-1]
    assert [layer.dilation[0] for layer in convolutions] == [1, 2, 3, 3]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}


@pytest.mark.parametrize(
    ("built", "fragment"),
    (
        (Network("nonsense", 4, 3), "got 'nonsense'"),
        (Network("unet", 4, 3, {"encoder": "nonsense"}), "'nonsense' is not"),
        (Network("mlp", 4, 3, {"hidden": [0]}), "hidden="),
        (Network("mlp", 4, 3, {"dropout": 1.0}), "Dropout"),
        (Network("fcn_dilated", 4, 3, {"kernel": [4]}), "odd"),
        (Network("fcn_dilated", 4, 3, {"blocks": 1, "kernel": [5, 3]}), "one value per block"),
    ),
)
def test_a_bad_description_is_refused(built: Network, fragment: str) -> None:
    with pytest.raises(DeepLearningError, match=fragment) as caught:
        backend.build(built)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ("unet", "resnet18", "cnn", "efficientnet_b0"))
def test_batch_normalisation_is_folded_away(architecture: str) -> None:
    module = trained_a_little(backend.build(network(architecture)), 4)
    folded = fold_batch_norm(module, networks.trial(network("unet"), SIZE))
    batch = torch.from_numpy(images(2, 4))
    with torch.inference_mode():
        torch.testing.assert_close(folded(batch), module(batch), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize(
    ("precision", "dtype"), (("32", torch.float32), pytest.param("bf16", torch.bfloat16, marks=KERNELS_IN_BFLOAT16))
)
def test_a_network_that_is_loaded_for_the_cpu_is_folded(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    built = network("unet")
    backend.save(backend.build(built), tmp_path / backend.FILE)
    layers = list(backend.load(tmp_path, card(built), "cpu", precision)._fast.modules())
    activated = [layer for layer in layers if isinstance(layer, ActivatedConvolution)]
    doubling = [layer for layer in layers if isinstance(layer, DoublingConvolution)]
    assert len(activated) > 20 and len(doubling) == 5
    assert {layer.weight.dtype for layer in (*activated, *doubling)} == {dtype}
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers)


def test_where_the_kernels_have_no_bf16_the_plain_network_computes_in_it(tmp_path: Path, monkeypatch) -> None:
    built = network("unet")
    backend.save(trained_a_little(backend.build(built), 4), tmp_path / backend.FILE)
    batch = images(2, 4, (64, 96))
    exact = backend.load(tmp_path, card(built), "cpu", "32")
    kernel = ActivatedConvolution.forward

    def as_without_avx512(self: ActivatedConvolution, *inputs: torch.Tensor) -> torch.Tensor:
        if self.weight.dtype != torch.float32:
            raise RuntimeError("mkldnn_convolution: bf16 path needs the cpu support avx512bw, avx512vl and avx512dq")
        return kernel(self, *inputs)

    monkeypatch.setattr(ActivatedConvolution, "forward", as_without_avx512)
    rounded = backend.load(tmp_path, card(built), "cpu", "bf16")
    assert 0 < np.abs(exact.predict(batch) - rounded.predict(batch)).max() < 0.1
    np.testing.assert_array_equal(exact.predict(batch[..., :63]), rounded.predict(batch[..., :63]))
    scores, features = rounded.predict_with_features(batch)
    np.testing.assert_array_equal(scores, rounded.predict(batch))
    assert features.shape == exact.predict_with_features(batch)[1].shape


class Forked(torch.nn.Module):
    """The output of the convolution goes past the normalisation too, so nothing may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(4, 4, 1)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        output = self.convolution(batch)
        return output + self.norm(output)


def test_a_fold_that_would_change_the_answer_is_not_used() -> None:
    module = trained_a_little(Forked(), 4)
    assert fold_batch_norm(module, networks.trial(network("unet"), SIZE)) is module


def saved(directory: Path) -> tuple[Network, dict[str, torch.Tensor]]:
    built = Network("mlp", 2, 2, {"hidden": [3]})
    module = backend.build(built)
    backend.save(module, directory / backend.FILE)
    return built, dict(module.state_dict())


def test_weights_of_another_shape_name_or_type_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    built, tensors = saved(tmp_path)
    name = "0.weight"
    for wrong in (
        {**tensors, name: torch.zeros(4, 2, 1, 1)},
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "extra": torch.zeros(1)},
        {**tensors, name: tensors[name].to(torch.float64)},
        {**tensors, name: torch.full_like(tensors[name], float("nan"))},
    ):
        save_file(wrong, str(tmp_path / backend.FILE))
        with pytest.raises(DeepLearningError, match="Weights must fit") as caught:
            backend.load(tmp_path, card(built), "cpu")
        assert "\n" not in str(caught.value)


def test_a_damaged_weights_file_is_refused(tmp_path: Path) -> None:
    built, _ = saved(tmp_path)
    whole = (tmp_path / backend.FILE).read_bytes()
    for damaged in (b"", whole[:20], whole[:-5], b"\x80\x04pickle" + whole):
        (tmp_path / backend.FILE).write_bytes(damaged)
        with pytest.raises(DeepLearningError, match="Weights must fit"):
            backend.load(tmp_path, card(built), "cpu")


def test_a_device_or_precision_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    built, _ = saved(tmp_path)
    for device in ("cuda:99", "tpu", "cpu:1", "cuda:x"):
        with pytest.raises(DeepLearningError, match="device must exist"):
            backend.load(tmp_path, card(built), device)
    with pytest.raises(DeepLearningError, match="Precision"):
        backend.load(tmp_path, card(built), "cpu", "64")
    with pytest.raises(DeepLearningError, match="GPU"):
        backend.load(tmp_path, card(built), "cpu", "16")


@pytest.mark.parametrize(
    ("device", "dtype", "rounded"),
    (("cuda", torch.float32, False), ("cuda", torch.bfloat16, True), ("cpu", torch.float32, True)),
)
def test_32_bit_are_all_multiplied_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, rounded: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    devices.multiply_in(dtype, torch.device(device))
    assert torch.backends.cudnn.allow_tf32 is rounded


def test_prediction_and_training_say_in_what_they_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    for room in (prediction, machinery):
        monkeypatch.setattr(room, "multiply_in", lambda dtype, device: said.append((dtype, device.type)))
    built, _ = saved(tmp_path)
    backend.load(tmp_path, card(built), "cpu", "32")
    machinery.make_fabric(torch.device("cpu"), resolved(Settings(precision="32"), "cell", (8, 8), 10))
    assert said == [(torch.float32, "cpu")] * 2


def test_bf16_changes_scores_little(tmp_path: Path) -> None:
    built = network("unet")
    backend.save(trained_a_little(backend.build(built), 4), tmp_path / backend.FILE)
    batch = images(2, 4, (64, 96))
    exact, rounded = (backend.load(tmp_path, card(built), "cpu", name).predict(batch) for name in ("32", "bf16"))
    assert np.abs(exact - rounded).max() < 0.1
    assert not np.array_equal(exact, rounded)


def test_small_inputs_are_computed_exactly_whatever_the_precision(tmp_path: Path) -> None:
    built = network("unet")
    backend.save(trained_a_little(backend.build(built), 4), tmp_path / backend.FILE)
    batch = images(2, 4, (63, 64))
    exact, rounded = (backend.load(tmp_path, card(built), "cpu", name).predict(batch) for name in ("32", "bf16"))
    np.testing.assert_array_equal(exact, rounded)


def test_a_network_that_is_never_shown_large_inputs_is_said_to_compute_in_32_bit(tmp_path: Path) -> None:
    built = network("resnet18")
    backend.save(backend.build(built), tmp_path / backend.FILE)
    assert backend.load(tmp_path, card(built), "cpu", "bf16").precision == "32"
    assert backend.load(tmp_path, card(built, (64, 64)), "cpu", "bf16").precision == "bf16"


def test_a_batch_that_does_not_fit_is_computed_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, _ = saved(tmp_path)
    predictor = backend.load(tmp_path, card(built), "cpu", "32")
    batch = images(5, 2)
    expected = predictor.predict(batch)
    whole = backend.Predictor._forward

    def limited(self: backend.Predictor, part: np.ndarray) -> np.ndarray:
        if len(part) > 2:
            raise torch.cuda.OutOfMemoryError
        return whole(self, part)

    monkeypatch.setattr(backend.Predictor, "_forward", limited)
    np.testing.assert_array_equal(predictor.predict(batch), expected)


def test_the_dilated_network_has_the_weights_of_its_paper() -> None:
    module = backend.build(network("fcn_dilated", bands=4, classes=7))
    first = 5 * 5 * 4 * 64 + 64
    others = 6 * (3 * 3 * 64 * 64 + 64)
    norms, head = 7 * 2 * 64, 7 * 64 * 7 + 7
    assert sum(parameter.numel() for parameter in module.parameters()) == first + others + norms + head == 232_071


@pytest.mark.parametrize("architecture", ("unet", "unetplusplus", "manet", "linknet"))
@pytest.mark.parametrize(("side", "depth"), ((8, 3), (16, 3), (31, 3), (32, 4), (63, 4), (64, 5), (256, 5)))
def test_small_patches_are_halved_less_often(architecture: str, side: int, depth: int) -> None:
    options = resolved(Settings(architecture=architecture), "cell", (side, 2 * side), 100).network
    assert options is not None and options["depth"] == depth
    built = Network(architecture, 4, 3, dict(options))
    assert backend.stride(built) == 2**depth
    if (side, depth) in ((16, 3), (32, 4)):
        module = backend.build(built).eval()
        deepest = []
        module.inner.encoder.register_forward_hook(lambda *values: deepest.append(values[-1][-1].shape[-1]))
        with torch.inference_mode():
            assert module(torch.zeros(1, 4, side, side)).shape == (1, 3, side, side)
        assert deepest == [2]


def test_other_networks_keep_their_depth() -> None:
    for architecture in ("fpn", "deeplabv3plus", "segformer", "upernet"):
        assert "depth" not in (resolved(Settings(architecture=architecture), "cell", (16, 16), 100).network or {})
    options = resolved(Settings(architecture="unet", network={"encoder": "mit_b0"}), "cell", (8, 8), 100).network
    assert options == {"encoder": "mit_b0", "depth": 4, "size": [8, 8]}
    with pytest.raises(DeepLearningError, match="depth"):
        backend.build(Network("fpn", 4, 3, {"depth": 4}))


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    (("segformer", "mit_b0"), ("upernet", "convnext_atto"), ("fpn", "efficientnet-b0"), ("unet", "tu-resnet18")),
)
@pytest.mark.parametrize("bands", (1, 13))
def test_encoders_of_every_kind_take_any_bands(architecture: str, encoder: str, bands: int) -> None:
    module = backend.build(Network(architecture, bands, 3, {"encoder": encoder}))
    loss = module.train()(torch.from_numpy(images(2, bands, (65, 33)))).square().mean()
    loss.backward()
    with torch.inference_mode():
        assert module.eval()(torch.from_numpy(images(1, bands, (65, 33)))).shape == (1, 3, 65, 33)


def test_a_network_that_no_machine_holds_is_refused() -> None:
    with pytest.raises(DeepLearningError, match="weights"):
        backend.build(Network("cnn", 4, 3, {"filters": 65536}))


_WITHOUT_COMPILER = """
import sys
import numpy as np
from pathlib import Path
from rlearndeep.backends import torch as backend
from rlearndeep.model import ModelCard, Network
from rlearndeep.scene.bands import Band, Normalization
from rlearndeep.scene.classes import ClassTable, MapClass

network = Network("unet", 2, 3, {"encoder": "resnet18"})
card = ModelCard(
    backend="torch", weights="weights.safetensors", network=network, bands=(Band("a"), Band("b")),
    normalization=Normalization("none"), classes=ClassTable(tuple(MapClass(n, str(n)) for n in (1, 2, 3))),
    patch=(64, 64), resolution=(1.0, 1.0), unit="cell", stride=32, reach=32,
)
place = Path(sys.argv[1])
backend.save(backend.build(network), place / card.weights)
predictor = backend.load(place, card, device="cpu", precision="32")
assert predictor.predict(np.zeros((1, 2, 64, 64), np.float32)).shape == (1, 3, 64, 64)
assert "torch._dynamo" not in sys.modules, "the compiler was imported"

import torch, torchvision.ops
assert torch.compiler.disable.__module__ == "torch.compiler"
boxes = torch.tensor([[0, 0, 0, 4.0, 4.0]])
assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
torch.use_deterministic_algorithms(True)
assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).sum() == 4
assert "torch._dynamo" in sys.modules
"""


def test_a_model_is_loaded_and_predicts_without_the_import_of_the_compiler(tmp_path: Path) -> None:
    library = str(Path(networks.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_COMPILER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": library}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


_WITH_COMPILER = """
from rlearndeep.backends.torch import libraries
import sys, torch

with libraries._compiler_later():
    from torch._dynamo.utils import is_compile_supported
    assert "torch._dynamo" not in sys.modules
    {wish}
assert is_compile_supported("cpu") in (True, False)
assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils
assert not [finder for finder in sys.meta_path if isinstance(finder, libraries._Watch)]
assert torch.compile(lambda value: value + 1, backend="eager")(torch.ones(1)) == 2
"""


@pytest.mark.parametrize(
    "wish",
    (
        "import torch._dynamo",
        "from torch._dynamo.utils import counters; assert hasattr(counters, 'keys')",
        "is_compile_supported('cpu')",
        "pass",
    ),
)
def test_who_needs_the_compiler_while_libraries_are_imported_gets_it_whole(wish: str) -> None:
    library = str(Path(networks.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", _WITH_COMPILER.replace("{wish}", wish)],
        env={**os.environ, "PYTHONPATH": library}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
