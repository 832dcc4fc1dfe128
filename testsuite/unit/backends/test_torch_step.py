"""Which networks of the libraries work with patches of which size, as a step of training on noise tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rlearndeep.backends import torch as backend
from rlearndeep.backends.torch import fitting, step
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.model import Network


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def checked(architecture: str, size: tuple[int, int], encoder: str = "", task: str = "class") -> None:
    """What the command does before it trains."""
    unit = "cell" if encoder else "patch"
    given = {"encoder": encoder} if encoder else None
    settings = resolved(
        Settings(architecture=architecture, network=given, device="cpu", nprocs=1), unit, size, 100, task
    )
    network = Network(architecture, 4, 1 if task == "value" else 3, dict(settings.network or {}))
    backend.check(network, settings, task, size)


@pytest.mark.parametrize(
    ("architecture", "encoder", "size"),
    (
        ("unet", "tu-swin_tiny_patch4_window7_224", (20, 33)),
        ("upernet", "tu-swinv2_cr_tiny_224", (20, 20)),
        ("unet", "tu-hrnet_w18_small", (40, 40)),
        ("manet", "tu-pvt_v2_b0", (17, 35)),
        ("linknet", "tu-pvt_v2_b0", (17, 35)),
        ("dpt", "vit_tiny_patch16_224", (17, 35)),
        ("unet", "tu-coat_lite_tiny", (20, 33)),
        ("fpn", "tu-botnet26t_256", (40, 40)),
        ("unet", "tu-maxvit_pico_rw_256", (33, 47)),
        ("unet", "tu-gcvit_xxtiny", (40, 40)),
        ("unet", "tu-efficientformerv2_s0", (40, 64)),
        ("unet", "tu-halonet_h1", (33, 40)),
        ("unet", "tu-efficientformer_l1", (33, 40)),
        ("unet", "tu-repvgg_a0", (33, 40)),
        ("unet", "mobileone_s0", (33, 40)),
    ),
)
def test_encoders_of_timm_work_at_any_size(architecture: str, encoder: str, size: tuple[int, int]) -> None:
    checked(architecture, size, encoder)


@pytest.mark.parametrize(
    ("architecture", "size"),
    (
        ("crossvit_tiny_240", (17, 35)),
        ("dla46_c", (17, 35)),
        ("ghostnetv2_100", (12, 9)),
        ("nest_tiny", (12, 40)),
        ("resnetaa34d", (40, 40)),
        ("efficientformer_l1", (12, 9)),
        ("inception_v3", (12, 9)),
        ("bat_resnext26ts", (40, 40)),
        ("csatv2", (32, 32)),
        ("efficientformer_l1", (12, 300)),
        ("lambda_resnet26t", (40, 42)),
        ("resnet50_mlp", (40, 42)),
    ),
)
def test_classifiers_of_timm_work_with_small_and_odd_patches(architecture: str, size: tuple[int, int]) -> None:
    checked(architecture, size)


def test_a_network_that_does_not_work_is_refused_before_training() -> None:
    with pytest.raises(DeepLearningError) as caught:
        checked("unet", (240, 240), "tu-efficientformer_l1")
    text = str(caught.value)
    assert "'unet'" in text and "tu-efficientformer_l1" in text and "240 x 240 cells" in text
    assert "\n" not in text


@pytest.mark.parametrize("task", ("class", "presence", "value"))
@pytest.mark.parametrize("architecture", ("cnn", "resnet18"))
def test_every_task_is_checked_with_labels_of_its_own(architecture: str, task: str) -> None:
    checked(architecture, (8, 8), task=task)


def test_a_check_draws_nothing_from_the_random_numbers_of_the_run() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    checked("unet", (16, 16), "resnet18")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_too_large_for_the_memory_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(step, "_learn", learn)
    with pytest.raises(DeepLearningError, match=r"memory of cpu; 'unet' with encoder=resnet18 and patches of 16 x 16"):
        checked("unet", (16, 16), "resnet18")


def test_scores_of_another_size_than_the_patch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "build", lambda network: torch.nn.Conv2d(4, 3, 3))
    with pytest.raises(DeepLearningError, match=r"scores of shape \(2, 3, 14, 14\)"):
        checked("unet", (16, 16), "resnet18")


def test_a_process_that_helps_takes_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(fitting, "check_step", lambda *values: taken.append(values))
    checked("cnn", (8, 8))
    monkeypatch.setattr(fitting, "is_helper", lambda *_: True)
    checked("cnn", (8, 8))
    assert len(taken) == 1


@pytest.mark.parametrize("share", (0.0, 0.5))
def test_dropout_of_a_classifier_of_timm_is_the_one_asked_for(share: float) -> None:
    module = backend.build(Network("resnet18", 4, 3, {"dropout": share})).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eval()
    images = torch.randn(2, 4, 32, 32)
    assert torch.equal(module(images), module(images)) == (share == 0)
    torch.manual_seed(1)
    seen: list[torch.Tensor] = []
    module.inner.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(images)
    features = module.inner.global_pool(module.inner.forward_features(images))
    left_out = ((seen[0] == 0) & (features != 0)).sum() / (features != 0).sum()
    assert abs(float(left_out) - share) < 0.1
