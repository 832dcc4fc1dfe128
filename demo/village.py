"""An aerial survey of an invented village: images, a height model, the truth, and what a surveyor mapped of it.

Everything follows from a seed. The ground is drawn at a quarter of a metre, lit by a low sun, and averaged to the
cells of the sensor, so that cells at the edges of objects are mixed. Colours overlap on purpose: slate roofs look
like asphalt, maize like trees, bare soil like gravel, shadows like water. Shape and surroundings tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CLASSES = {
    1: ("building", (214, 60, 50)),
    2: ("field", (222, 203, 118)),
    3: ("road", (110, 110, 118)),
    4: ("tree", (20, 110, 50)),
    5: ("water", (60, 120, 215)),
}
"""Category of the truth: its label and its colour; in the order in which a text column of labels is numbered."""

BUILDING, FIELD, ROAD, TREE, WATER = CLASSES
BANDS = ("red", "green", "blue", "nir")

FINE = 4  # cells of the drawing per cell of the imagery
CELL = 1.0 / FINE  # metres
SURFACE = 2  # cells of the imagery per cell of the surface model
SUN = (-0.5, -0.8, 0.72)  # towards the sun: east, north, up; in the south-south-west
MAPPED_SHARE = 0.62  # of the columns, from the west; further east nobody mapped anything

Color = tuple[float, float, float, float]  # reflectance in red, green, blue, near infrared
Point = tuple[float, float]  # metres from the north-western corner: east, south

ASPHALT: tuple[Color, ...] = ((0.15, 0.152, 0.155, 0.175), (0.22, 0.215, 0.205, 0.25))
GRAVEL: Color = (0.30, 0.265, 0.215, 0.34)
ROOFS: tuple[tuple[Color, float], ...] = (
    ((0.34, 0.17, 0.13, 0.36), 0.38),  # tiles
    ((0.24, 0.17, 0.13, 0.29), 0.2),  # old tiles
    ((0.16, 0.162, 0.17, 0.19), 0.24),  # slate, as asphalt
    ((0.28, 0.272, 0.26, 0.31), 0.1),  # concrete, as gravel
    ((0.42, 0.43, 0.44, 0.45), 0.08),  # metal
)
CROPS: tuple[tuple[Color, float, float], ...] = (  # colour, height in metres, share
    ((0.11, 0.165, 0.085, 0.40), 0.1, 0.34),  # meadow
    ((0.075, 0.135, 0.06, 0.47), 0.5, 0.18),  # young wheat
    ((0.36, 0.31, 0.19, 0.46), 0.8, 0.14),  # ripe wheat
    ((0.26, 0.205, 0.15, 0.32), 0.0, 0.2),  # bare soil
    ((0.065, 0.115, 0.05, 0.42), 1.9, 0.14),  # maize, as trees
)
LAWNS: tuple[Color, ...] = ((0.11, 0.17, 0.08, 0.40), (0.19, 0.19, 0.11, 0.36), (0.09, 0.14, 0.07, 0.37))
LEAVES: tuple[Color, ...] = (
    (0.065, 0.115, 0.05, 0.42),
    (0.085, 0.14, 0.06, 0.46),
    (0.045, 0.08, 0.045, 0.27),
    (0.15, 0.11, 0.07, 0.36),
)
RIVER: Color = (0.075, 0.09, 0.075, 0.06)
POND: Color = (0.05, 0.065, 0.06, 0.045)

# Polylines in shares of the scene's width and height.
MAIN_ROAD = ((-0.05, 0.33), (0.18, 0.36), (0.4, 0.47), (0.62, 0.46), (0.82, 0.55), (1.05, 0.6))
STREETS = (
    ((0.12, 0.35), (0.1, 0.62), (0.16, 0.8)),
    ((0.34, 0.44), (0.3, 0.66), (0.36, 0.84)),
    ((0.1, 0.62), (0.3, 0.66), (0.52, 0.62), (0.55, 0.46)),
    ((0.5, 0.47), (0.52, 0.28), (0.46, 0.12)),
    ((0.72, 0.5), (0.7, 0.7), (0.78, 0.86)),
    ((0.7, 0.7), (0.9, 0.75), (0.92, 0.58)),
    ((0.8, 0.54), (0.84, 0.34), (0.78, 0.2)),
)
TRACKS = (
    ((0.46, 0.12), (0.3, 0.14), (0.16, 0.2), (0.12, 0.35)),
    ((0.36, 0.84), (0.33, 1.05)),
    ((0.78, 0.2), (0.8, -0.05)),
    ((0.78, 0.86), (0.6, 0.92), (0.36, 0.84)),
)
STREAM = ((0.27, -0.05), (0.33, 0.1), (0.29, 0.24), (0.42, 0.36), (0.63, 0.38), (0.72, 0.3), (0.9, 0.28), (1.05, 0.2))
# Middle and radius, in shares too.
PONDS = ((0.2, 0.92, 0.034), (0.43, 0.72, 0.02), (0.88, 0.9, 0.031), (0.05, 0.5, 0.022), (0.64, 0.15, 0.027))
WOODS = ((0.02, 0.84, 0.097), (0.5, 0.96, 0.086), (0.6, 0.28, 0.07), (0.98, 0.4, 0.078), (0.38, 0.2, 0.062))


@dataclass(frozen=True)
class Village:
    """What the survey delivers; rows run from north to south, cells of 1 m (the surface model: 2 m).

    Attributes:
        bands: digital numbers by band, (rows, cols); 0 where the flight has no imagery.
        surface: height above ground in metres, (rows / 2, cols / 2); NaN where there is none.
        truth: category of every cell, (rows, cols); known because the village is invented.
        mapped: the categories that the surveyor mapped, 0 elsewhere.
    """

    bands: dict[str, NDArray[np.uint16]]
    surface: NDArray[np.float32]
    truth: NDArray[np.uint8]
    mapped: NDArray[np.uint8]


@dataclass
class Drawing:
    """The ground seen from above at a quarter of a metre, while objects are drawn on it.

    Attributes:
        size: side in metres.
        rng: the only source of randomness.
        kind: category on top of every cell.
        item: number of the object on top, an index into ``items``.
        height: of the top above the ground in metres.
        color: reflectance, (4, rows, cols).
        items: category, and centre in metres, of every object.
    """

    size: int
    rng: np.random.Generator
    kind: NDArray[np.uint8] = field(init=False)
    item: NDArray[np.int32] = field(init=False)
    height: NDArray[np.float32] = field(init=False)
    color: NDArray[np.float32] = field(init=False)
    items: list[tuple[int, Point]] = field(default_factory=list)

    def __post_init__(self) -> None:
        side = self.size * FINE
        self.kind = np.full((side, side), FIELD, dtype=np.uint8)
        self.item = np.zeros((side, side), dtype=np.int32)
        self.height = np.zeros((side, side), dtype=np.float32)
        self.color = np.empty((4, side, side), dtype=np.float32)

    def add(self, kind: int, centre: Point) -> int:
        """Register an object and return its number."""
        self.items.append((kind, centre))
        return len(self.items) - 1

    def window(self, centre: Point, reach: float) -> tuple[tuple[slice, slice], NDArray, NDArray]:
        """Cells within ``reach`` metres of a point, and their east and south distances from it; may be empty."""
        slices = []
        axes = []
        for middle in (centre[1], centre[0]):
            start = max(0, int((middle - reach) * FINE))
            stop = max(start, min(self.size * FINE, int((middle + reach) * FINE) + 1))
            slices.append(slice(start, stop))
            axes.append(((np.arange(start, stop) + 0.5) * CELL - middle).astype(np.float32))
        return (slices[0], slices[1]), axes[1][None, :], axes[0][:, None]

    def box(
        self, centre: Point, length: float, width: float, angle: float
    ) -> tuple[tuple[slice, slice], NDArray, NDArray]:
        """As :meth:`window`, with distances along and across a box turned by ``angle`` radians."""
        slices, east, south = self.window(centre, np.hypot(length, width) / 2 + 1)
        cos, sin = np.cos(angle), np.sin(angle)
        return slices, east * cos + south * sin, south * cos - east * sin

    def paint(
        self, slices: tuple[slice, slice], inside: NDArray, kind: int, item: int, color: NDArray | Sequence[float]
    ) -> None:
        """Put an object on top where ``inside``; colours are four numbers or (4, rows, cols)."""
        self.kind[slices][inside] = kind
        self.item[slices][inside] = item
        values = np.asarray(color, dtype=np.float32)
        for band in range(4):
            self.color[band][slices][inside] = values[band] if values[band].ndim == 0 else values[band][inside]

    def kind_at(self, point: Point) -> int:
        """Category at a point, 0 outside."""
        row, col = int(point[1] * FINE), int(point[0] * FINE)
        side = self.size * FINE
        return int(self.kind[row, col]) if 0 <= row < side and 0 <= col < side else 0


def build(size: int = 640, seed: int = 2) -> Village:
    """The survey of a square of ``size`` metres; the same size and seed give the same survey."""
    if size % SURFACE or size < 128:
        raise ValueError(f"size must be even and at least 128; got {size}")
    drawing = Drawing(size, np.random.default_rng(seed))
    draw_parcels(drawing)
    draw_water(drawing)
    draw_roads(drawing)
    draw_buildings(drawing)
    draw_trees(drawing)
    return survey(drawing)


# --- the ground -------------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator, side: int, grain: float) -> NDArray[np.float32]:
    """A smooth random field of mean 0 and deviation about 1, (side, side), with grains of ``grain`` cells."""
    few = int(side / grain) + 4
    coarse = rng.standard_normal((few, few)).astype(np.float32)
    position = np.arange(side, dtype=np.float32) / np.float32(grain)
    first = position.astype(int)
    weight = position - first
    weight = weight * weight * (3 - 2 * weight)
    rows = coarse[first] * (1 - weight)[:, None] + coarse[first + 1] * weight[:, None]
    return (rows[:, first] * (1 - weight) + rows[:, first + 1] * weight) * np.float32(1.35)


def scaled(line: Sequence[Point], size: int) -> list[Point]:
    """A polyline of shares in metres, its corners rounded off twice (Chaikin 1974)."""
    points = [(east * size, south * size) for east, south in line]
    for _ in range(2):
        cut = [points[0]]
        for (x0, y0), (x1, y1) in pairwise(points):
            cut += [(0.75 * x0 + 0.25 * x1, 0.75 * y0 + 0.25 * y1), (0.25 * x0 + 0.75 * x1, 0.25 * y0 + 0.75 * y1)]
        points = [*cut, points[-1]]
    return points


def walk(line: Sequence[Point], step: float) -> Iterator[tuple[Point, float]]:
    """Points every ``step`` metres along a polyline, with its direction in radians."""
    left = step / 2
    for (x0, y0), (x1, y1) in pairwise(line):
        length = float(np.hypot(x1 - x0, y1 - y0))
        while left <= length:
            share = left / length
            yield (x0 + share * (x1 - x0), y0 + share * (y1 - y0)), float(np.arctan2(y1 - y0, x1 - x0))
            left += step
        left -= length


def tinted(rng: np.random.Generator, color: Color, light: float, tint: float) -> NDArray[np.float32]:
    """A colour as one object has it: brighter or darker by ``light``, each band by ``tint`` (deviations), (4, 1, 1)."""
    gains = rng.lognormal(0, light) * rng.lognormal(0, tint, 4)
    return (np.array(color) * gains).astype(np.float32)[:, None, None]


def streets(size: int) -> list[list[Point]]:
    """The main road and the streets, in metres."""
    return [scaled(line, size) for line in (MAIN_ROAD, *STREETS)]


def split(rng: np.random.Generator, box: tuple[float, float, float, float], largest) -> Iterator[tuple]:
    """Cut a box (west, north, east, south) until no side is longer than ``largest(box)``."""
    west, north, east, south = box
    wide, high = east - west, south - north
    if max(wide, high) <= largest(box):
        yield box
        return
    share = rng.uniform(0.36, 0.64)
    if wide > high:
        parts = ((west, north, west + share * wide, south), (west + share * wide, north, east, south))
    else:
        parts = ((west, north, east, north + share * high), (west, north + share * high, east, south))
    for part in parts:
        yield from split(rng, part, largest)


def draw_parcels(drawing: Drawing) -> None:
    """Fields and, near the streets, gardens: everything that the rest is drawn upon."""
    size, rng, tilt = drawing.size, drawing.rng, 0.2
    cos, sin = np.cos(tilt), np.sin(tilt)
    built = np.array([point for line in streets(size)[1:] for point, _ in walk(line, 10.0)])

    def centre(box: tuple) -> Point:
        u, v = (box[0] + box[2]) / 2 - size / 2, (box[1] + box[3]) / 2 - size / 2
        return u * cos - v * sin + size / 2, u * sin + v * cos + size / 2

    def near(box: tuple) -> bool:
        return bool(np.hypot(*(built - centre(box)).T).min() < 36)

    for box in split(rng, (-0.3 * size, -0.3 * size, 1.3 * size, 1.3 * size), lambda box: 34 if near(box) else 76):
        draw_parcel(drawing, centre(box), (box[2] - box[0], box[3] - box[1]), tilt, near(box))


def draw_parcel(drawing: Drawing, centre: Point, sides: Point, tilt: float, garden: bool) -> None:
    """One field with furrows and a gradient, or one garden."""
    rng = drawing.rng
    slices, along, across = drawing.box(centre, *sides, tilt)
    shares = np.array([crop[2] for crop in CROPS])
    crop = CROPS[rng.choice(len(CROPS), p=shares / shares.sum())]
    color, height = (LAWNS[rng.integers(len(LAWNS))], 0.1) if garden else crop[:2]
    turn, period, phase = rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.06), rng.uniform(1.6, 4.5), rng.uniform(0, 6)
    deep = 0.02 if garden else rng.uniform(0.05, 0.16)
    slope = rng.normal(0, 0.12, 2) / max(sides)
    if 0 in along.shape or 0 in across.shape:
        return
    inside = (np.abs(along) <= sides[0] / 2) & (np.abs(across) <= sides[1] / 2)
    furrow = np.sin((along * np.cos(turn) + across * np.sin(turn)) * (2 * np.pi / period) + phase)
    light = 1 + deep * furrow + slope[0] * along + slope[1] * across
    values = tinted(rng, color, 0.16, 0.07) * light
    drawing.paint(slices, inside, FIELD, drawing.add(FIELD, centre), values)
    drawing.height[slices][inside] = (height * (1 + 0.15 * furrow))[inside]


def draw_strip(drawing: Drawing, line: Sequence[Point], width: float, kind: int, color: Color) -> None:
    """A road or a river along a polyline; every 45 m is an object of its own."""
    item = -1
    for number, (point, _) in enumerate(walk(line, 1.5)):
        if number % 30 == 0:
            item = drawing.add(kind, point)
        reach = width / 2 * (1 + (0.18 * np.sin(number / 9) + 0.1 * np.sin(number / 4) if kind == WATER else 0))
        slices, east, south = drawing.window(point, reach)
        inside = east**2 + south**2 <= reach**2
        drawing.paint(slices, inside, kind, item, color)
        drawing.height[slices][inside] = 0


def draw_water(drawing: Drawing) -> None:
    """A river and ponds."""
    size, rng = drawing.size, drawing.rng
    draw_strip(drawing, scaled(STREAM, size), 15.0, WATER, RIVER)
    for east, south, share in PONDS:
        centre, radius = (east * size, south * size), share * size
        slices, dx, dy = drawing.window(centre, 1.5 * radius)
        angle = np.arctan2(dy, dx)
        outline = radius * (
            1 + 0.2 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.08 * np.sin(5 * angle + rng.uniform(0, 6))
        )
        inside = dx**2 + dy**2 <= outline**2
        tint = rng.uniform(0.8, 1.7)
        drawing.paint(slices, inside, WATER, drawing.add(WATER, centre), tuple(tint * value for value in POND))
        drawing.height[slices][inside] = 0


def draw_roads(drawing: Drawing) -> None:
    """Gravel tracks, streets and the main road."""
    size = drawing.size
    for track in TRACKS:
        draw_strip(drawing, scaled(track, size), 3.6, ROAD, GRAVEL)
    for number, line in enumerate(streets(size)[1:]):
        draw_strip(drawing, line, 5.5, ROAD, ASPHALT[number % 2])
    draw_strip(drawing, streets(size)[0], 8.0, ROAD, ASPHALT[0])


# --- what stands on it ------------------------------------------------------------------------------------------------


def draw_buildings(drawing: Drawing) -> None:
    """Houses on both sides of the streets, with sheds and driveways, and some halls at the main road."""
    rng, lines = drawing.rng, streets(drawing.size)
    for number, line in enumerate(lines):
        for point, direction in walk(line, 21.0 if number else 34.0):
            for side in (-1, 1):
                if rng.random() < 0.84:
                    draw_plot(drawing, point, direction, side, hall=rng.random() < (0.1 if number else 0.35))


def draw_plot(drawing: Drawing, point: Point, direction: float, side: int, hall: bool) -> None:
    """A house or hall beside the street at ``point``, its driveway, and perhaps a shed behind it."""
    rng = drawing.rng
    length, width = (rng.uniform(20, 34), rng.uniform(13, 19)) if hall else (rng.uniform(9, 16), rng.uniform(8, 11))
    back = 5 + width / 2 + rng.uniform(1.5, 7)
    away = direction + side * np.pi / 2
    place = (point[0] + back * np.cos(away), point[1] + back * np.sin(away))
    angle = direction + rng.normal(0, 0.06)
    high = rng.uniform(4.5, 7) if hall else rng.uniform(2.8, 5)
    if not draw_building(drawing, place, (length, width), angle, high, flat=hall or rng.random() < 0.15):
        return
    if rng.random() < 0.75 or hall:
        along = rng.uniform(-0.35, 0.35) * length
        gate = (point[0] + along * np.cos(direction), point[1] + along * np.sin(direction))
        draw_drive(drawing, gate, away, back, rng.uniform(7, 12) if hall else rng.uniform(2.8, 4.5))
    if rng.random() < 0.5:
        deeper = back + width / 2 + rng.uniform(4, 9)
        spot = (point[0] + deeper * np.cos(away), point[1] + deeper * np.sin(away))
        sides = (rng.uniform(4, 7), rng.uniform(3.2, 5))
        draw_building(drawing, spot, sides, angle + rng.choice((0, 0.4)), rng.uniform(2.1, 2.8), flat=True)


def draw_building(drawing: Drawing, centre: Point, sides: Point, angle: float, high: float, flat: bool) -> bool:
    """A building with a flat or gabled roof; not drawn, and False, where something stands already."""
    rng = drawing.rng
    shares = np.array([share for _, share in ROOFS])
    color = tinted(rng, ROOFS[rng.choice(len(ROOFS), p=shares / shares.sum())][0], 0.15, 0.05)
    steep = rng.uniform(0.35, 0.7)
    slices, along, across = drawing.box(centre, *sides, angle)
    room = (np.abs(along) <= sides[0] / 2 + 1) & (np.abs(across) <= sides[1] / 2 + 1)
    if not room.any() or np.isin(drawing.kind[slices][room], (BUILDING, ROAD, WATER)).any():
        return False
    inside = (np.abs(along) <= sides[0] / 2) & (np.abs(across) <= sides[1] / 2)
    rows = 1 + 0.05 * np.sin(across * 2 * np.pi / 1.1)
    roof = np.broadcast_to(color * rows, (4, *inside.shape))
    drawing.paint(slices, inside, BUILDING, drawing.add(BUILDING, centre), roof)
    rise = 0 * across if flat else (sides[1] / 2 - np.abs(across)) * steep
    drawing.height[slices][inside] = np.broadcast_to(high + rise, inside.shape)[inside]
    return True


def draw_drive(drawing: Drawing, gate: Point, away: float, length: float, width: float) -> None:
    """Paved ground between street and building."""
    middle = (gate[0] + length / 2 * np.cos(away), gate[1] + length / 2 * np.sin(away))
    slices, along, across = drawing.box(middle, length, width, away)
    inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2) & (drawing.kind[slices] == FIELD)
    color = (GRAVEL, *ASPHALT)[drawing.rng.integers(3)]
    drawing.paint(slices, inside, ROAD, drawing.add(ROAD, middle), color)
    drawing.height[slices][inside] = 0


def draw_trees(drawing: Drawing) -> None:
    """Woods, trees along the river and the main road, in gardens, and hedges between fields."""
    size, rng = drawing.size, drawing.rng
    for east, south, radius in WOODS:
        draw_wood(drawing, (east * size, south * size), radius * size)
    beside = [(point, 9 + abs(rng.normal(0, 4))) for point, _ in walk(scaled(STREAM, size), 5.0)]
    beside += [(point, 6.5) for point, _ in walk(streets(size)[0], 13.0)]
    for (east, south), far in beside:
        if rng.random() < 0.6:
            angle = rng.uniform(0, 2 * np.pi)
            draw_tree(drawing, (east + far * np.cos(angle), south + far * np.sin(angle)), (1.6, 4.2))
    for line in streets(size):
        for east, south in [point for point, _ in walk(line, 4.5)]:
            far, angle = rng.uniform(8, 40), rng.uniform(0, 2 * np.pi)
            draw_tree(drawing, (east + far * np.cos(angle), south + far * np.sin(angle)), (1.2, 4.4))
    for _ in range(int(size / 30)):
        draw_hedge(drawing)


def draw_wood(drawing: Drawing, centre: Point, radius: float) -> None:
    """Crowns over dark undergrowth; every square of 28 m is an object of its own."""
    rng = drawing.rng
    slices, east, south = drawing.window(centre, 1.6 * radius)
    angle, waves = np.arctan2(south, east), rng.uniform(0, 6, 3)
    outline = 1 + 0.25 * np.sin(2 * angle + waves[0]) + 0.15 * np.sin(3 * angle + waves[1])
    outline = radius * (outline + 0.05 * np.sin(9 * angle + waves[2]))
    inside = (east**2 + south**2 <= outline**2) & (drawing.kind[slices] == FIELD)
    if not inside.any():
        return
    squares = {}
    for _ in range(int(radius**2 / 3.2)):
        place = rng.uniform(-1.4, 1.4, 2) * radius + centre
        row, col = int(place[1] * FINE) - slices[0].start, int(place[0] * FINE) - slices[1].start
        if 0 <= row < inside.shape[0] and 0 <= col < inside.shape[1] and inside[row, col]:
            square = (int(place[0] // 28), int(place[1] // 28))
            if square not in squares:
                squares[square] = drawing.add(TREE, (place[0], place[1]))
            draw_tree(drawing, (place[0], place[1]), (2.0, 4.6), squares[square])
    floor = inside & (drawing.kind[slices] == FIELD)
    drawing.paint(slices, floor, TREE, drawing.add(TREE, centre), tuple(0.75 * value for value in LEAVES[2]))
    drawing.height[slices][floor] = 1.5


def draw_hedge(drawing: Drawing) -> None:
    """A row of bushes and small trees along the direction of the parcels."""
    rng = drawing.rng
    east, south = rng.uniform(0, drawing.size, 2)
    angle = 0.2 + rng.choice((0.0, np.pi / 2))
    for step in np.arange(0, rng.uniform(25, 80), 2.1):
        place = (east + step * np.cos(angle) + rng.normal(0, 0.5), south + step * np.sin(angle) + rng.normal(0, 0.5))
        draw_tree(drawing, place, (1.0, 2.4))


def draw_tree(drawing: Drawing, trunk: Point, radii: Point, item: int | None = None) -> None:
    """One crown, an object of its own unless it is part of one.

    Its trunk must stand on open ground; its branches may hang over anything lower.
    """
    rng = drawing.rng
    radius, waves = rng.uniform(*radii), rng.uniform(0, 6, 2)
    color = tinted(rng, LEAVES[rng.choice(4, p=(0.45, 0.3, 0.17, 0.08))], 0.12, 0.06)
    tall = rng.uniform(1.2, 2.0)
    if drawing.kind_at(trunk) not in (FIELD, TREE):
        return
    slices, east, south = drawing.window(trunk, 1.4 * radius)
    angle = np.arctan2(south, east)
    outline = radius * (1 + 0.14 * np.sin(3 * angle + waves[0]) + 0.1 * np.sin(5 * angle + waves[1]))
    dome = 1 - (east**2 + south**2) / outline**2
    lumps = ndimage.gaussian_filter(rng.standard_normal(dome.shape).astype(np.float32), 1.6) * 3.5
    height = (radius * tall + 1) * np.sqrt(np.clip(dome, 0, 1)) * (1 + 0.06 * lumps) + 0.6
    inside = (dome > 0) & (height > drawing.height[slices])
    values = color * (1 + 0.16 * lumps)
    drawing.paint(slices, inside, TREE, drawing.add(TREE, trunk) if item is None else item, values)
    drawing.height[slices][inside] = height[inside]


# --- light and sensor -------------------------------------------------------------------------------------------------


def shadows(height: NDArray[np.float32]) -> NDArray[np.bool_]:
    """True where something towards the sun is higher than the ray of light, same shape."""
    east, north, up = SUN
    level = np.hypot(east, north)
    dark = np.zeros(height.shape, dtype=bool)
    rise = up / level * CELL
    for step in range(2, int(height.max() / rise) + 1, 2):
        rows, cols = round(-north / level * step), round(east / level * step)
        here, there = _shifted(height.shape, rows, cols)
        dark[here] |= height[there] - step * rise > height[here]
    return dark


def _shifted(shape: tuple[int, int], rows: int, cols: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    here, there = [], []
    for length, offset in zip(shape, (rows, cols), strict=True):
        here.append(slice(max(0, -offset), max(0, length - max(0, offset))))
        there.append(slice(max(0, offset), max(0, length - max(0, -offset))))
    return (here[0], here[1]), (there[0], there[1])


def illumination(drawing: Drawing) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Share of direct sunlight, and of skylight, that each fine cell reflects (1 on open level ground)."""
    height = drawing.height
    slope_south, slope_east = (np.clip(slope, -2.5, 2.5) for slope in np.gradient(height, np.float32(CELL)))
    east, north, up = SUN
    facing = (up - east * slope_east + north * slope_south) / np.sqrt(1 + slope_east**2 + slope_south**2) / up
    direct = np.clip(facing, 0, 1.8) * ~shadows(height)
    # Clouds outside the picture throw wide, soft shadows.
    cloud = noise(drawing.rng, height.shape[0], 150 * FINE)
    direct *= 1 - 0.6 / (1 + np.exp(-6 * (cloud - 0.55)))
    return direct.astype(np.float32), np.float32(1) - np.float32(0.12) * (height > 2.5)


def averaged(values: NDArray, cells: int) -> NDArray[np.float32]:
    """Means of squares of ``cells`` fine cells."""
    rows, cols = values.shape
    return values.reshape(rows // cells, cells, cols // cells, cells).mean(axis=(1, 3), dtype=np.float32)


def expose(drawing: Drawing) -> dict[str, NDArray[np.uint16]]:
    """The four bands: light, mixed cells, blur, haze and sensor noise."""
    rng, side = drawing.rng, drawing.size * FINE
    direct, sky = illumination(drawing)
    speckle = 1 + np.float32(0.07) * noise(rng, side, 3) + np.float32(0.05) * noise(rng, side, 14)
    water = drawing.kind == WATER
    ripple = np.float32(0.35) * noise(rng, side, 60)
    speckle[water] = 1 + ripple[water]
    bands = {}
    for number, (name, skylight, haze) in enumerate(
        zip(BANDS, (0.24, 0.3, 0.38, 0.17), (0.012, 0.018, 0.03, 0.004), strict=True)
    ):
        light = (1 - np.float32(skylight)) * direct + np.float32(skylight) * sky
        seen = averaged(drawing.color[number] * speckle * light, FINE) + haze
        seen = ndimage.gaussian_filter(seen, 0.45)
        seen *= 1 + 0.06 * (np.arange(drawing.size, dtype=np.float32) / drawing.size - 0.5)
        counts = 6000 * seen
        counts += rng.standard_normal(counts.shape).astype(np.float32) * np.sqrt(60**2 + 7 * counts)
        bands[name] = np.clip(np.rint(counts), 1, 16383).astype(np.uint16)
    return bands


def measure_surface(drawing: Drawing) -> NDArray[np.float32]:
    """The height model: coarse, blurred and with correlated errors, as from image matching."""
    rng, cells = drawing.rng, FINE * SURFACE
    surface = ndimage.gaussian_filter(averaged(drawing.height, cells), 1.1)
    side = surface.shape[0]
    surface += 0.8 * noise(rng, side, 4) + 0.9 * noise(rng, side, 22)
    surface += rng.standard_normal(surface.shape).astype(np.float32) * 0.5
    surface += 1.2 * averaged(drawing.kind == WATER, cells) * noise(rng, side, 4)
    return np.round(np.clip(surface, 0, None), 2).astype(np.float32)


def survey(drawing: Drawing) -> Village:
    """What the flight and the surveyor bring home of the drawing."""
    size = drawing.size
    truth = _majority(drawing.kind)
    mapped = map_objects(drawing, truth)
    bands = expose(drawing)
    surface = measure_surface(drawing)
    row, col = np.ogrid[:size, :size]
    edge = 0.16 * size - 0.8 * row + 5 * np.sin(row / 7) + 3 * np.sin(row / 2.3)
    for band in bands.values():
        band[col < edge] = 0
    row, col = np.ogrid[: size // SURFACE, : size // SURFACE]
    surface[(col > size / SURFACE - 6 - 3 * np.sin(row / 5)) & (row > 0.6 * size / SURFACE)] = np.nan
    return Village(bands, surface, truth, mapped)


def _majority(kind: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shares = np.stack([averaged(kind == category, FINE) for category in CLASSES])
    return (shares.argmax(axis=0) + 1).astype(np.uint8)


def map_objects(drawing: Drawing, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Categories of the objects that were mapped: a part of those in the west, nothing in the east."""
    chance = {BUILDING: 0.75, ROAD: 0.65, TREE: 0.6, FIELD: 0.5, WATER: 0.85}
    kinds = np.array([kind for kind, _ in drawing.items], dtype=np.uint8)
    east = np.array([centre[0] for _, centre in drawing.items])
    lot = drawing.rng.random(len(kinds))
    chosen = (lot < np.array([chance[int(kind)] for kind in kinds])) & (east < (MAPPED_SHARE - 0.02) * drawing.size)
    item = drawing.item[FINE // 2 :: FINE, FINE // 2 :: FINE]
    mapped = np.where(chosen[item] & (kinds[item] == truth), truth, 0).astype(np.uint8)
    mapped[:, int(MAPPED_SHARE * drawing.size) :] = 0
    return mapped
