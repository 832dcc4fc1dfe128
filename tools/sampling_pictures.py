#!/usr/bin/env python3
"""Draw the pictures in the manual of v.sample.patches: placements, label rules and splits, by the library itself.

tools/sampling_pictures.py writes v.sample.patches/v_sample_patches_*.png. It needs matplotlib and no GRASS.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "lib"))

from rlearndeep.sampling.labels import LabelTable, feature_table  # noqa: E402
from rlearndeep.sampling.plan import Plan, make_plan  # noqa: E402
from rlearndeep.sampling.settings import Settings, Split  # noqa: E402
from rlearndeep.scene.bands import Band  # noqa: E402
from rlearndeep.scene.classes import ClassTable, MapClass  # noqa: E402
from rlearndeep.scene.codes import FIRST_CODE, NOTHING  # noqa: E402
from rlearndeep.scene.geometry import Region, Window  # noqa: E402

LAND = ListedColormap(["#ffffff", "#d9e8c9", "#f4e6c3", "#cfe0ee"])
PARTS = ("#0072b2", "#e69f00", "#d55e00")
CLASSES = ("#3b7d1f", "#b8860b", "#2f6fa7")
SIDE, CELL = 120, 10.0


@dataclass
class Landscape:
    """Areas of three classes, each with a number; 0 is no area."""

    areas: NDArray[np.int64]
    classes: dict[int, int]

    region = Region(SIDE * CELL, 0.0, SIDE * CELL, 0.0, SIDE, SIDE)
    bands = (Band("band"),)
    dtype = np.dtype(np.uint8)
    null = -1

    @property
    def table(self) -> LabelTable:
        """What the codes mean; every area is a group of its own."""
        numbers = sorted(self.classes)
        table = ClassTable(tuple(MapClass(number, "") for number in sorted(set(self.classes.values()))))
        names = {number: str(number) for number in numbers}
        return feature_table([(number,) for number in numbers], numbers, table, self.classes, names)

    @property
    def land(self) -> NDArray[np.int64]:
        """Class per cell, 0 for none."""
        return np.array([0, *(self.classes[number] for number in sorted(self.classes))])[self.areas]

    def read_nulls(self, window: Window) -> NDArray[np.bool_]:
        """Nothing is null."""
        return np.zeros(window.shape, dtype=bool)

    def read_codes(self, window: Window) -> NDArray[np.int32]:
        """Areas as codes."""
        part = self.areas[window.slices]
        return np.where(part > 0, part - 1 + FIRST_CODE, NOTHING).astype(np.int32)

    def read_ignored(self, window: Window) -> None:
        """Nothing is ignored."""


def landscape() -> Landscape:
    """Smooth areas: connected pieces of three classes, with paths between them that have no label."""
    from scipy.ndimage import label

    random = np.random.default_rng(4)
    fields = np.stack([gaussian_filter(random.normal(size=(SIDE, SIDE)), 9, mode="wrap") for _ in range(3)])
    land = fields.argmax(axis=0) + 1
    edge = np.sort(fields, axis=0)
    land[edge[2] - edge[1] < 0.0012] = 0
    areas, classes, count = np.zeros((SIDE, SIDE), dtype=np.int64), {}, 0
    for number in (1, 2, 3):
        pieces, found = label(land == number)
        for piece in range(1, found + 1):
            if (pieces == piece).sum() > 30:
                count += 1
                areas[pieces == piece] = count
                classes[count] = number
    return Landscape(areas, classes)


def plan_of(scene: Landscape, points: tuple[NDArray, NDArray] | None = None, **wishes: object) -> Plan:
    """A plan without reading any band."""
    asked = {"size": (10, 10), "split": Split(kind="none"), "min_labelled": 60.0} | wishes
    return make_plan([scene], scene.table, Settings(**asked), points)  # type: ignore[arg-type, list-item]


def draw(axes: Axes, scene: Landscape, plan: Plan, title: str) -> None:
    """The land, and the patches in the colours of their parts, or of their class where each has one."""
    axes.imshow(scene.land, cmap=LAND, vmin=0, vmax=3, interpolation="nearest")
    patches = plan.patches
    colors = [PARTS[part] for part in plan.part]
    if plan.patches.counts is None and (plan.part == 0).all():
        colors = [CLASSES[plan.classes[label].category - 1] for label in patches.label]
    sides = patches.row, patches.col, patches.height, patches.width
    for row, col, height, width, color in zip(*sides, colors, strict=True):
        box = (col + 0.1, row + 0.1), width - 1.2, height - 1.2
        axes.add_patch(Rectangle(*box, facecolor=color, alpha=0.3))
        axes.add_patch(Rectangle(*box, facecolor="none", edgecolor=color, linewidth=0.9))
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def panels(name: str, entries: list[tuple[str, Plan]], scene: Landscape, note: str = "") -> None:
    """A picture of several plans side by side."""
    figure = Figure(figsize=(2.6 * len(entries), 2.9 + 0.25 * bool(note)), layout="constrained")
    for axes, (title, plan) in zip(np.atleast_1d(figure.subplots(1, len(entries))), entries, strict=True):
        draw(axes, scene, plan, title)
    if note:
        figure.supxlabel(note, fontsize=8)
    figure.savefig(ROOT / "v.sample.patches" / f"v_sample_patches_{name}.png", dpi=90, pil_kwargs={"optimize": True})


def main() -> None:
    """Write all pictures."""
    mpl.rcParams["font.family"] = "DejaVu Sans"
    scene = landscape()
    row, col = np.random.default_rng(2).integers(8, SIDE - 8, (2, 40))
    labelled = scene.land[row, col] > 0
    points = row[labelled], col[labelled]
    panels(
        "placements",
        [
            ("placement=grid", plan_of(scene)),
            ("placement=grid stride=5", plan_of(scene, stride=(5, 5))),
            ("placement=random number=60", plan_of(scene, placement="random", number=60)),
            ("placement=points", plan_of(scene, points, placement="points", rule="center")),
        ],
        scene,
    )
    panels(
        "labels",
        [
            ("label=cells", plan_of(scene, min_labelled=0.0)),
            ("label=inside", plan_of(scene, rule="inside", stride=(4, 4))),
            ("label=majority", plan_of(scene, rule="majority", min_labelled=90.0)),
            ("label=object", plan_of(scene, rule="object", size=None, min_labelled=0.0)),
        ],
        scene,
    )
    by_area = Split(kind="column", buffer=0.0)
    panels(
        "splits",
        [
            ("split=random", plan_of(scene, split=Split(kind="random"))),
            ("split=block buffer=0", plan_of(scene, split=Split(buffer=0.0, block_size=300.0), seed=3)),
            ("split=block", plan_of(scene, split=Split(block_size=300.0), seed=3)),
            ("split=column, by area", plan_of(scene, rule="majority", split=by_area)),
        ],
        scene,
        "blue: training, yellow: validation, red: test",
    )


if __name__ == "__main__":
    main()
