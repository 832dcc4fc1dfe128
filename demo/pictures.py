"""Pictures of the demo's maps, drawn by GRASS, and one overview of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import village

OVERVIEW = ("image", "labels", "map", "segments")
TITLES = {
    "image": "Imagery",
    "labels": "Labels: areas somebody mapped",
    "map": "Map of the U-Net",
    "segments": "The same per segment",
}


def draw(directory: Path) -> None:
    """Write image, labels, map, segments, truth and certainty as PNG to a directory, and overview.png."""
    directory.mkdir(parents=True, exist_ok=True)
    brighten(("red", "green", "blue"))
    for raster in ("cover", "cover_segments"):
        _run("r.colors", f"map={raster}", "raster=truth", "--quiet")
    _run("r.colors", "map=certainty", "color=viridis", "--quiet")
    photo = ("d.rgb", "red=red", "green=green", "blue=blue")
    layers: dict[str, list[tuple[str, ...]]] = {
        "image": [photo],
        "labels": [photo, ("d.vect", "map=labels", "type=area", "color=none")],
        "map": [("d.rast", "map=cover")],
        "segments": [("d.rast", "map=cover_segments")],
        "truth": [("d.rast", "map=truth")],
        "certainty": [("d.rast", "map=certainty")],
    }
    for name, commands in layers.items():
        render(directory / f"{name}.png", commands)
    compose(directory)


def brighten(bands: tuple[str, ...]) -> None:
    """Give bands one common grey scale that lifts shadows, as a photograph does."""
    top = max(
        float(_run("r.univar", "-ge", f"map={band}", "percentile=95").split("percentile_95=")[1]) for band in bands
    )
    steps = [(step / 12 * top, round(255 * (step / 12) ** 0.6)) for step in range(13)]
    rules = "".join(f"{value} {grey}:{grey}:{grey}\n" for value, grey in steps)
    for band in bands:
        _run("r.colors", f"map={band}", "rules=-", stdin=f"{rules}1000000 255:255:255\nnv 255:255:255\n")


def render(file: Path, commands: list[tuple[str, ...]]) -> None:
    """Draw the current region with GRASS display commands, two pixels per cell."""
    region = dict(line.split("=") for line in _run("g.region", "-g").split())
    file.unlink(missing_ok=True)
    for command in commands:
        _run(
            *command,
            GRASS_RENDER_IMMEDIATE="cairo",
            GRASS_RENDER_FILE=str(file),
            GRASS_RENDER_FILE_READ="TRUE",
            GRASS_RENDER_WIDTH=str(2 * int(region["cols"])),
            GRASS_RENDER_HEIGHT=str(2 * int(region["rows"])),
            GRASS_RENDER_TRUECOLOR="TRUE",
        )


def compose(directory: Path) -> None:
    """``overview.png``: four pictures in a row over the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imread
    from matplotlib.patches import Patch

    figure = Figure(figsize=(16, 4.7), dpi=100)
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(OVERVIEW)), OVERVIEW, strict=True):
        axes.imshow(imread(directory / f"{name}.png"), interpolation="antialiased")
        axes.set_title(TITLES[name], fontsize=13)
        axes.set_axis_off()
    legend = [Patch(color=(r / 255, g / 255, b / 255), label=label) for label, (r, g, b) in village.CLASSES.values()]
    figure.legend(handles=legend, loc="lower center", ncols=len(legend), frameon=False, fontsize=12)
    figure.subplots_adjust(left=0.005, right=0.995, top=0.93, bottom=0.085, wspace=0.02)
    figure.savefig(directory / "overview.png")


def _run(*command: str, stdin: str | None = None, **env: str) -> str:
    done = subprocess.run(command, env={**os.environ, **env}, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout
