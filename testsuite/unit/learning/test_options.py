"""Option texts become settings, and settings get their defaults from the patches."""

from __future__ import annotations

from typing import Any

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning.options import Settings, from_options, resolved


@pytest.mark.parametrize(
    ("unit", "shape", "architecture"),
    (
        ("cell", (1, 1), "mlp"),
        ("cell", (64, 64), "unet"),
        ("patch", (64, 64), "resnet18"),
        ("patch", (12, 12), "cnn"),
        ("patch", (5, 13), "resnet18"),
        ("patch", (1, 1), "mlp"),
    ),
)
def test_the_architecture_follows_from_the_label(unit: str, shape: tuple[int, int], architecture: str) -> None:
    assert resolved(Settings(), unit, shape, 100).architecture == architecture


@pytest.mark.parametrize("values", ({"weights": "imagenet"}, {"pretrain": "simclr", "unlabelled": ("there",)}))
def test_an_encoder_that_has_learned_something_is_the_default_for_small_patches(values: dict[str, Any]) -> None:
    assert resolved(Settings(**values), "patch", (7, 7), 100).architecture == "resnet18"


@pytest.mark.parametrize("training", (1, 10, 300, 24000, 10**7))
@pytest.mark.parametrize("shape", ((1, 1), (64, 64), (512, 512)))
def test_every_choice_is_made_for_any_number_of_patches(shape: tuple[int, int], training: int) -> None:
    settings = resolved(Settings(), "cell", shape, training)
    for value in (settings.epochs, settings.batch_size, settings.learning_rate):
        assert value is not None and value > 0
    assert settings.patience is not None and settings.augment is not None and settings.weight_decay is not None


@pytest.mark.parametrize(
    ("values", "rate"),
    (
        ({"architecture": "unet"}, 0.001),
        ({"architecture": "unet", "network": {"encoder": "mit_b0"}}, 0.0003),
        ({"architecture": "dpt"}, 0.0003),
        ({"architecture": "dpt", "optimizer": "sgd"}, 0.01),
    ),
)
def test_the_rate_suits_the_encoder_whoever_chose_it(values: dict[str, Any], rate: float) -> None:
    assert resolved(Settings(**values), "cell", (64, 64), 100).learning_rate == rate


def test_what_the_user_chose_stays() -> None:
    chosen = from_options(
        {
            "architecture": "mlp",
            "hidden": "256,128",
            "dropout": "0.1",
            "epochs": "7",
            "batch_size": "3",
            "patience": "0",
            "learning_rate": "0.5",
            "weight_decay": "0",
            "augment": "none",
            "class_weights": "1,2.5",
            "format": "json",
            "model": "x",
        }
    )
    settings = resolved(chosen, "cell", (1, 1), 1000)
    assert settings.network == {"hidden": [256, 128], "dropout": 0.1, "unit": "cell"}
    assert (settings.epochs, settings.batch_size, settings.patience) == (7, 3, 0)
    assert (settings.learning_rate, settings.weight_decay) == (0.5, 0.0)
    assert settings.augment == () and settings.class_weights == (1.0, 2.5)


@pytest.mark.parametrize(
    ("options", "fragment"),
    (
        ({"loss": "nonsense"}, "loss="),
        ({"loss": "dice+dice"}, "each once"),
        ({"epochs": "0"}, "epochs="),
        ({"epochs": "many"}, "whole number"),
        ({"learning_rate": "0"}, "learning_rate="),
        ({"learning_rate": "nan"}, "learning_rate="),
        ({"class_weights": "-1,1"}, "Class weights"),
        ({"class_weights": "0,0"}, "Class weights"),
        ({"augment": "none,flip"}, "stands alone"),
        ({"augment": "shear"}, "augment="),
        ({"learning_rate": "fast"}, "learning_rate="),
        ({"loss": "mse"}, "labels that are classes"),
        ({"loss": "cross_entropy+bce"}, "'bce' does not"),
        ({"devices": "0"}, "devices="),
        ({"optimizer": "lion"}, "optimizer="),
        ({"architecture": "unet", "hidden": "12"}, "hidden= has no meaning"),
        ({"architecture": "resnet18", "encoder": "resnet18"}, "encoder= has no meaning"),
        ({"weight_decay": "auto"}, "weight_decay= needs a number"),
        ({"momentum": "0.9"}, "momentum= has no meaning with optimizer=adamw"),
        ({"momentum": "0", "optimizer": "adam"}, "momentum= has no meaning with optimizer=adam"),
        ({"step": "10"}, "step= has no meaning with scheduler=onecycle"),
        ({"step": "3", "scheduler": "none"}, "step= has no meaning with scheduler=none"),
        ({"gamma": "0.1", "scheduler": "cosine"}, "gamma= has no meaning with scheduler=cosine"),
        ({"encoder_rate": "1"}, "encoder_rate= has no meaning with weights=none"),
        ({"weights": "imagenet", "freeze": "encoder", "encoder_rate": "0.2"}, "frozen has no rate"),
    ),
)
def test_a_bad_value_is_refused_in_one_line(options: dict[str, str], fragment: str) -> None:
    unit = "patch" if options.get("architecture") == "resnet18" else "cell"
    with pytest.raises(DeepLearningError, match=fragment) as caught:
        resolved(from_options(options), unit, (64, 64), 100)
    assert "\n" not in str(caught.value)


def test_patches_are_flipped_and_turned_unasked_and_single_cells_left_alone() -> None:
    assert resolved(Settings(), "cell", (8, 8), 100).augment == ("flip", "rotate")
    assert resolved(Settings(), "cell", (1, 1), 100).augment == ()


@pytest.mark.parametrize("step", ("flip", "rotate", "crop", "blur", "erase"))
def test_single_cells_cannot_be_moved(step: str) -> None:
    with pytest.raises(DeepLearningError, match=f"Leave out {step}"):
        resolved(Settings(augment=("jitter", step)), "cell", (1, 1), 100)
    assert resolved(Settings(augment=("jitter", "noise")), "cell", (1, 1), 100).augment == ("jitter", "noise")


@pytest.mark.parametrize(
    "options",
    (
        {"optimizer": "sgd", "momentum": "0"},
        {"scheduler": "step", "step": "3", "gamma": "0.5"},
        {"scheduler": "plateau", "step": "3", "gamma": "0.5"},
        {"weights": "imagenet", "freeze": "5", "encoder_rate": "0.2"},
        {"weights": "imagenet", "encoder_rate": "1"},
    ),
)
def test_an_option_that_has_a_meaning_is_taken(options: dict[str, str]) -> None:
    settings = resolved(from_options(options), "cell", (64, 64), 100)
    assert all(str(getattr(settings, name)).removesuffix(".0") == value for name, value in options.items())


def test_settings_of_a_model_are_settings_again() -> None:
    settings = resolved(Settings(), "cell", (64, 64), 100)
    again = Settings(
        **{name: tuple(value) if name == "augment" else value for name, value in settings.to_json().items()}
    )
    assert (again.momentum, again.step, again.gamma, again.encoder_rate) == (0.9, 10, 0.1, 1.0)


def test_settings_are_plain_values_for_the_model() -> None:
    import json

    settings = resolved(Settings(class_weights=(1.0, 2.0)), "patch", (32, 32), 10)
    assert json.loads(json.dumps(settings.to_json())) == settings.to_json()


def test_threads_do_not_share_batches_of_single_cells() -> None:
    assert resolved(Settings(), "cell", (1, 1), 1000).nprocs == 1
    assert resolved(Settings(nprocs=3), "cell", (1, 1), 1000).nprocs == 3
    assert resolved(Settings(), "cell", (64, 64), 1000).nprocs == 0


@pytest.mark.parametrize(("task", "loss"), (("class", "cross_entropy"), ("presence", "bce"), ("value", "mse")))
def test_the_loss_follows_from_the_task(task: str, loss: str) -> None:
    assert resolved(Settings(), "patch", (32, 32), 100, task).loss == loss
    assert resolved(Settings(loss="huber"), "patch", (32, 32), 100, "value").loss == "huber"


def test_automatic_choices_are_those_of_no_choice_but_for_the_learning_rate() -> None:
    chosen = from_options({"batch_size": "auto", "learning_rate": "auto"})
    settings = resolved(chosen, "cell", (64, 64), 100)
    assert settings.batch_size == resolved(Settings(), "cell", (64, 64), 100).batch_size
    assert settings.learning_rate == "auto"
