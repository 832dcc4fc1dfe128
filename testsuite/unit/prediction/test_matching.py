"""Sources that were given find the sources of the models, or are refused with both sides shown."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from prediction_scenes import FusingPredictor, make_card, member
from rlearndeep.errors import DeepLearningError
from rlearndeep.model import ModelCard, ModelSource
from rlearndeep.prediction.answers import check_members, check_views
from rlearndeep.prediction.matching import Offer, arrange
from rlearndeep.scene.bands import Band

DATES = ("2020-01-01",)


def bands(*names: str) -> tuple[Band, ...]:
    return tuple(Band(name) for name in names)


def source(name: str, *names: str, use: str = "branch") -> ModelSource:
    return ModelSource(name, bands(*names), (4, 4), (1.0, 1.0), use, dates=DATES if name == "series" else ())


def card_of(*sources: ModelSource, **more) -> ModelCard:
    """A model of the bands b0 and b1, and what is stacked behind them."""
    behind = tuple(band for one in sources if one.use != "branch" for band in one.bands)
    card = make_card(**more)
    return replace(card, bands=(*card.bands, *behind), sources=sources)


REFERENCE = bands("other", "b1", "b0")


def test_a_model_of_one_source_reads_its_bands_alone():
    found = arrange([card_of()], REFERENCE, [])
    assert (found.reference, found.positions, found.layers, found.absent) == ((2, 1), ((0, 1),), (), ())


def test_sources_are_known_by_their_bands_whatever_the_order():
    card = card_of(source("auxiliary1", "ndsm"), source("auxiliary2", "vv", "vh"), source("series", "ndvi"))
    offers = [
        Offer("radar", bands("vh", "hh", "vv")),
        Offer("dem", bands("ndsm")),
        Offer("s2", bands("ndvi"), ("2020-01-01", "2021-01-01", "2021-02-01")),
    ]
    found = arrange([card], REFERENCE, offers)
    assert dict(found.offers) == {"auxiliary1": 1, "auxiliary2": 0, "series": 2}
    assert found.bands["auxiliary2"] == (2, 0)
    assert [branch.positions for branch in found.branches[0]] == [(0,), (0, 1), (0,)]
    assert found.absent == ()
    model = member(FusingPredictor(), card)
    few, many = model.batch_size(20, None), replace(model, branches=found.branches[0]).batch_size(20, None)
    assert (few, many) == (10, 3)


def test_sources_with_the_same_bands_follow_the_order():
    card = card_of(source("auxiliary1", "x"), source("auxiliary2", "x"))
    offers = [Offer("first", bands("x")), Offer("second", bands("x"))]
    assert dict(arrange([card], REFERENCE, offers).offers) == {"auxiliary1": 0, "auxiliary2": 1}
    found = arrange([card], REFERENCE, offers[1:])
    assert dict(found.offers) == {"auxiliary1": 0}
    assert found.absent == ("auxiliary2",)
    stacked = card_of(source("auxiliary1", "x"), source("auxiliary2", "x", use="nearest"))
    assert dict(arrange([stacked], REFERENCE, offers[1:]).offers) == {"auxiliary2": 0}


def test_stacked_bands_stand_behind_the_reference_in_the_order_of_the_sources():
    card = card_of(source("auxiliary1", "p", "q", use="nearest"), source("auxiliary2", "r", use="bilinear"))
    found = arrange([card], REFERENCE, [Offer("two", bands("r")), Offer("one", bands("q", "p"))])
    assert found.layers == (("auxiliary1", "nearest"), ("auxiliary2", "bilinear"))
    assert found.bands["auxiliary1"] == (1, 0)
    assert found.positions == ((0, 1, 2, 3, 4),)
    assert found.stacked_bands == 3
    assert found.branches == ((),)


def test_each_of_several_models_gets_what_it_needs_by_name():
    smooth = card_of(source("auxiliary1", "p", use="bilinear"))
    rough = card_of(source("auxiliary1", "q", "p", use="nearest"))
    fused, alone = card_of(source("auxiliary1", "q")), card_of()
    found = arrange([smooth, rough, fused, alone], REFERENCE, [Offer("both", bands("z", "p", "q"))])
    assert found.bands == {"auxiliary1": (1, 2)}
    assert found.layers == (("auxiliary1", "bilinear"), ("auxiliary1", "nearest"))
    assert found.positions == ((0, 1, 2), (0, 1, 5, 4), (0, 1), (0, 1))
    assert [len(branches) for branches in found.branches] == [0, 0, 1, 0]
    assert found.branches[2][0].positions == (1,)


def test_a_branch_may_be_absent_and_a_stacked_source_may_not():
    fused = card_of(source("auxiliary1", "p"), source("series", "ndvi"))
    found = arrange([fused], REFERENCE, [])
    assert found.absent == ("auxiliary1", "series")
    assert [branch.positions for branch in found.branches[0]] == [(), ()]
    stacked = card_of(source("auxiliary1", "p", use="nearest"))
    with pytest.raises(DeepLearningError, match=r"auxiliary1 1 \[p\]; given beside the reference: nothing"):
        arrange([stacked], REFERENCE, [])


@pytest.mark.parametrize(
    ("sources", "offers", "message"),
    [
        ((), [Offer("x", bands("p"))], r"the reference alone; given beside the reference: auxiliary <x> 1 \[p\]"),
        (
            (source("auxiliary1", "p"),),
            [Offer("x", bands("p")), Offer("y", bands("p"))],
            r"auxiliary1 1 \[p\]; given .* <x> 1 \[p\], auxiliary <y> 1 \[p\]",
        ),
        ((source("auxiliary1", "p", "q"),), [Offer("x", bands("p"))], r"auxiliary1 2 \[p, q\]; given .* <x> 1 \[p\]"),
        ((source("series", "p"),), [Offer("x", bands("p"))], r"series 1 \[p\]; given .* auxiliary <x>"),
        (
            (source("auxiliary1", "p"),),
            [Offer("a, b", bands("p"), DATES)],
            r"auxiliary1 1 \[p\]; given .* series <a, b>",
        ),
    ],
)
def test_what_fits_no_source_is_refused_with_both_sides(sources, offers, message):
    with pytest.raises(DeepLearningError, match=message) as refusal:
        arrange([card_of(*sources)], REFERENCE, offers)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("given", (11, 13))
def test_one_of_many_sources_with_the_same_bands_too_few_or_too_many_is_refused_at_once(given):
    months = [source(f"auxiliary{month}", "vv", use="nearest") for month in range(1, 13)]
    offers = [Offer(f"radar{month}", bands("vv")) for month in range(13)]
    assert len(arrange([card_of(*months)], REFERENCE, offers[:12]).offers) == 12
    started = time.monotonic()
    with pytest.raises(DeepLearningError, match="Further sources must match"):
        arrange([card_of(*months)], REFERENCE, offers[:given])
    assert time.monotonic() - started < 5


def test_missing_bands_of_the_reference_are_those_of_the_reference_alone():
    card = card_of(source("auxiliary1", "p", use="nearest"))
    with pytest.raises(DeepLearningError, match=r"needs 2 \[b0, b1\], the group has 1 \[b0\]"):
        arrange([card], bands("b0"), [Offer("x", bands("p"))])


def test_models_with_branches_are_averaged_only_with_patches_of_one_size():
    fused = card_of(source("auxiliary1", "p"), patch=(8, 8))
    with pytest.raises(DeepLearningError, match=r"patches of one size; 'b' has \(8, 8\), 'c' has \(4, 4\)"):
        check_members([card_of(patch=(16, 16)), fused, replace(fused, patch=(4, 4))], ["a", "b", "c"])
    check_members([card_of(patch=(16, 16)), fused, fused], ["a", "b", "c"])


def test_sources_that_are_not_square_are_not_turned():
    wide = replace(source("auxiliary1", "p"), shape=(4, 6))
    with pytest.raises(DeepLearningError, match="4 x 6 cells of one"):
        check_views([card_of(wide)], "d4")
    check_views([card_of(wide)], "flips")
    check_views([card_of(source("auxiliary1", "p"))], "d4")
