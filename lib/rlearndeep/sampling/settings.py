"""What the user asks of v.sample.patches, as one checked value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.errors import DeepLearningError
from rlearndeep.patches import PARTS

RULES = ("cells", "inside", "majority", "center", "object", "presence", "density")
PLACEMENTS = ("grid", "random", "points")
SPLITS = ("block", "random", "class", "column", "acquisition", "none")

# Rules of a label per patch that depend on how much of it is labelled ask for half by default; that a class is
# absent is known only of a patch whose cells all have labels.
_DEFAULT_MIN_LABELLED = {"majority": 50.0, "presence": 100.0}

_PERCENTILE = 97.0

_KINDS = {"area": "areas", "point": "points", "raster": "a raster"}

# A percentage of cells that is a whole number must not become a little more or less.
_ROUNDING = 1e-6

# GRASS's parser says this where the user said nothing.
_LAYER = "1"


@dataclass(frozen=True)
class Split:
    """How patches are divided among training, validation and test.

    Attributes:
        kind: one of ``SPLITS``.
        shares: of training, validation and test; they sum to 1.
        block_size: side of a block in map units, or None for the documented default.
        buffer: distance in map units that patches of different parts must keep, or None for the default:
            one patch for ``block`` and ``column``, nothing for the others.
        validation: values of the split column, or acquisitions, that form the validation part.
        test: values of the split column, or acquisitions, that form the test part.
    """

    kind: str = "block"
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15)
    block_size: float | None = None
    buffer: float | None = None
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("split", self.kind, SPLITS)
        _check_positive("block_size", self.block_size)
        if self.buffer is not None and not self.buffer >= 0:
            raise DeepLearningError(f"buffer= must not be negative; got {self.buffer:g}. Use 0 for none.")
        if self.kind == "acquisition" and self.buffer:
            raise DeepLearningError(
                f"split=acquisition puts the same ground into several parts; buffer={self.buffer:g} would leave "
                "none of them. Leave buffer= out, or choose split=block."
            )
        if self.block_size is not None and self.kind != "block":
            raise DeepLearningError(
                f"block_size= is the side of the blocks of split=block; got split={self.kind}. Leave it out, or choose "
                "split=block."
            )
        if self.buffer is not None and self.kind == "none":
            raise DeepLearningError(
                "buffer= keeps parts apart; split=none makes but one. Leave it out, or choose another split=."
            )
        both = sorted(set(self.validation) & set(self.test))
        if both:
            raise DeepLearningError(
                f"A value belongs to one part; validation= and test= both name '{both[0]}'. Name it once."
            )

    @property
    def keeps_apart(self) -> bool:
        """True when the split promises that patches of two parts never overlap."""
        return self.kind in ("block", "column")

    def check_shares(self) -> None:
        """Refuse shares that were given although they have no say.

        Raises:
            DeepLearningError: there is but one part, or names make the parts.
        """
        if self.kind == "none" or self.validation or self.test:
            got = "split=none" if self.kind == "none" else "names in validation= or test="
            raise DeepLearningError(f"shares= divide places among the parts; with {got} they do not. Leave it out.")

    @property
    def goes_by_shares(self) -> bool:
        """True when patches have no parts before they are divided, as names and acquisitions may give them."""
        return self.kind not in ("column", "acquisition")

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {
            "kind": self.kind,
            "shares": list(self.shares),
            "block_size": self.block_size,
            "buffer": self.buffer,
            "validation": list(self.validation),
            "test": list(self.test),
        }


@dataclass(frozen=True)
class Settings:
    """Everything that decides which patches are sampled.

    Attributes:
        size: rows and columns of a patch in cells of the reference source; None only for the rule
            ``object``, which then takes the largest box.
        rule: one of ``RULES``.
        placement: one of ``PLACEMENTS``.
        stride: rows and columns between neighbouring patches of a grid, in cells.
        number: how many patches at most, or None.
        per_class: how many patches at most of each class, or None.
        max_null: percent of null cells allowed in a patch.
        min_labelled: percent of labelled cells a patch needs; None for the rule's default. One
            labelled cell is needed in any case.
        drop_duplicates: leave out patches with the same bands and label as another one.
        background: a cell that no label covers counts as this category, or None: as unlabelled.
        percentile: of the cells with points, at which the rule ``density`` cuts their number.
        seed: of every random choice.
        memory: megabytes to work in.
        workers: threads that cut patches, beside the one that reads.
    """

    size: tuple[int, int] | None
    rule: str = "cells"
    placement: str = "grid"
    stride: tuple[int, int] | None = None
    number: int | None = None
    per_class: int | None = None
    max_null: float = 0.0
    min_labelled: float | None = None
    drop_duplicates: bool = True
    background: int | None = None
    percentile: float | None = None
    split: Split = field(default_factory=Split)
    seed: int = 1
    memory: int = 300
    workers: int = 1

    def __post_init__(self) -> None:
        _check_choice("label", self.rule, RULES)
        _check_choice("placement", self.placement, PLACEMENTS)
        self._check_use()
        self._check_ranges()
        if self.placement == "random" and self.number is None and self.per_class is None:
            raise DeepLearningError("placement=random needs number= or per_class=; got neither. Add one of them.")
        if self.rule == "object" and self.placement != "grid":
            raise DeepLearningError(
                f"label=object places one patch on each area; got placement={self.placement}. Leave placement= out."
            )
        if self.background is not None and (self.rule in ("object", "density") or self.split.kind == "column"):
            raise DeepLearningError(
                "background= makes labels that lie in no area; label=object and split=column need areas, and "
                "label=density counts what no point covers as 0. Leave background= out, or choose another label= or "
                "split=."
            )
        if self.number is not None and self.per_class is not None:
            raise DeepLearningError("number= and per_class= exclude each other; got both. Leave one out.")
        if self.size is None and self.rule != "object":
            raise DeepLearningError(f"label={self.rule} needs size=; got none. Give rows[,columns] in cells.")

    def _check_ranges(self) -> None:
        """Refuse numbers that are too small or too large."""
        for name in ("number", "per_class", "memory"):
            _check_positive(name, getattr(self, name))
        _check_positive("nprocs", self.workers)
        for name, sides in (("size", self.size), ("stride", self.stride)):
            for side in sides or ():
                _check_positive(name, side)
        if self.seed < 0:
            raise DeepLearningError(f"seed= must not be negative; got {self.seed}. Use 0 or a larger number.")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise DeepLearningError(
                f"percentile= is a percentage above 0; got {self.percentile:g}. Use a number up to 100 (no cut)."
            )
        for name in ("max_null", "min_labelled"):
            percent = getattr(self, name)
            if percent is not None and not 0 <= percent <= 100:
                raise DeepLearningError(f"{name}= is a percentage; got {percent:g}. Use a number from 0 to 100.")

    def _check_use(self) -> None:
        """Refuse what would change nothing, or cannot be."""
        if self.rule == "density" and self.split.kind == "column":
            raise DeepLearningError(
                "split=column divides features; got label=density, which gives a value to every cell, most of which "
                "belong to none. Choose split=block."
            )
        if self.percentile is not None and self.rule != "density":
            raise DeepLearningError(
                f"percentile= cuts the number of points of label=density; got label={self.rule}. Leave it out."
            )
        if self.stride is not None and (self.placement != "grid" or self.rule == "object"):
            what = "label=object" if self.rule == "object" else f"placement={self.placement}"
            raise DeepLearningError(
                f"stride= is the step of a grid of patches; got {what}. Leave it out, or choose placement=grid."
            )

    def check_labels(self, vector: str, raster: str, column: str, split_column: str, layer: str = _LAYER) -> None:
        """Refuse label sources that do not fit the settings; empty texts stand for what was not given.

        Raises:
            DeepLearningError: no column, a layer without a vector, a rule or split without its source, or a split
                column without its split.
        """
        if layer != _LAYER and not vector:
            raise DeepLearningError(
                f"layer= is a layer of the label vector; got layer={layer} without input=. Leave layer= out, or name "
                "the vector."
            )
        if not vector and not raster:
            self._check_unlabelled()
        if vector and bool(column) == (self.rule == "density"):
            raise DeepLearningError(
                f"label=density counts points and has no use for a column; got column={column}. Leave column= out, "
                "choose points with where=."
                if column
                else f"Labels of vector map <{vector}> need column=; got none. Name the class column."
            )
        if (self.split.kind == "column") != bool(split_column):
            got = f"split={self.split.kind} and " + (
                f"split_column={split_column}" if split_column else "no split_column="
            )
            raise DeepLearningError(f"split=column and split_column= belong together; got {got}. Give both or none.")
        if (self.split.validation or self.split.test) and self.split.kind not in ("column", "acquisition"):
            raise DeepLearningError(
                f"validation= and test= name values of split_column=, or groups; got split={self.split.kind}. Add "
                "split=column with split_column=, or split=acquisition."
            )
        if raster:
            self.check_kind("raster")

    def _check_unlabelled(self) -> None:
        """Without labels there is nothing that a rule, a balance or a split could go by."""
        given = {
            "label": self.rule if self.rule != "cells" else "",
            "per_class": self.per_class,
            "background": self.background,
            "min_labelled": self.min_labelled,
            "split": self.split.kind if self.split.kind not in ("block", "none") else "",
        }
        for name, value in given.items():
            if value not in ("", None):
                raise DeepLearningError(
                    f"{name}={value} needs labels; got neither input= nor raster=. Give a label vector or a label "
                    f"raster, or leave {name}= out for unlabelled patches."
                )
        if self.placement == "points":
            raise DeepLearningError(
                "placement=points needs points; got no input=. Give a vector of points, or choose another placement=."
            )

    def check_kind(self, kind: str) -> None:
        """Refuse a label source of a kind (``area``, ``point``, ``raster``) that does not fit the settings.

        Raises:
            DeepLearningError: a rule, placement or split that needs another kind.
        """
        wishes = (
            (self.rule == "object", ("area",), "label=object", "areas"),
            (self.rule == "inside", ("area", "raster"), "label=inside", "areas or a raster"),
            (self.rule == "density", ("point",), "label=density", "points"),
            (self.placement == "points", ("point",), "placement=points", "points"),
            (self.split.kind == "column", ("area", "point"), "split=column", "a label vector"),
        )
        for wished, kinds, option, needed in wishes:
            if wished and kind not in kinds:
                raise DeepLearningError(
                    f"{option} needs {needed}; the labels are {_KINDS[kind]}. Choose another option."
                )

    def check_values(self, name: str, has_areas: bool) -> None:
        """Refuse what needs classes when the labels are values (regression).

        Args:
            name: of the column or raster, for the message.
            has_areas: the values belong to areas or points, not to a raster.

        Raises:
            DeepLearningError: such a rule, split or choice.
        """
        needs = (
            (self.rule == "presence", "label=presence"),
            (self.split.kind == "class", "split=class"),
            (self.per_class is not None, "per_class="),
            (self.background is not None, "background="),
            (self.rule == "inside" and not has_areas, "label=inside of a raster"),
        )
        for wished, option in needs:
            if wished:
                raise DeepLearningError(
                    f"{option} needs classes; <{name}> holds floating point values. Choose another option, or make "
                    "classes of the values (r.recode, or an integer column)."
                )

    @property
    def density_percentile(self) -> float:
        """The percentile of points per cell that becomes 1."""
        return _PERCENTILE if self.percentile is None else self.percentile

    @property
    def needed_share(self) -> float:
        """Share of labelled cells a patch needs, 0..1."""
        percent = _DEFAULT_MIN_LABELLED.get(self.rule, 0.0) if self.min_labelled is None else self.min_labelled
        return percent / 100

    def are_too_null(self, null: NDArray[np.int64], cells: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for patches with more null cells, of so many cells, than are allowed."""
        return null > self.max_null / 100 * cells + _ROUNDING

    def are_labelled(self, labelled: NDArray[np.int64], cells: int | NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for patches with as many labelled cells, of so many cells, as are needed; one in any case."""
        return (labelled > 0) & (labelled >= self.needed_share * cells - _ROUNDING)

    @property
    def unit(self) -> str:
        """What carries a label: ``cell`` or ``patch``."""
        return "cell" if self.rule in ("cells", "density") else "patch"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {
            "size": list(self.size) if self.size else None,
            "label": self.rule,
            "placement": self.placement,
            "stride": list(self.stride) if self.stride else None,
            "number": self.number,
            "per_class": self.per_class,
            "max_null": self.max_null,
            "min_labelled": 100 * self.needed_share,
            "duplicates": "drop" if self.drop_duplicates else "keep",
            "background": self.background,
            "percentile": self.density_percentile if self.rule == "density" else None,
            "split": self.split.to_json(),
            "seed": self.seed,
        }


def shares_of(text: str) -> tuple[float, float, float]:
    """Shares that sum to 1 from numbers like ``70,15,15`` for training, validation and test.

    Raises:
        DeepLearningError: not three numbers, a negative one, or nothing for training.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(PARTS) or min(numbers) < 0 or not 0 < sum(numbers) < float("inf"):
        raise DeepLearningError(
            f"Shares are three numbers for {', '.join(PARTS)}, none negative; got '{text}'. Use e.g. shares=70,15,15."
        )
    if numbers[0] == 0:
        raise DeepLearningError(f"The training part needs a share above 0; got '{text}'. Use e.g. shares=70,15,15.")
    total = sum(numbers)
    return numbers[0] / total, numbers[1] / total, numbers[2] / total


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DeepLearningError(f"{name}= must be one of {', '.join(choices)}; got '{value}'. Choose one of them.")


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise DeepLearningError(f"{name}= must be above 0; got {value:g}. Use a larger number.")
