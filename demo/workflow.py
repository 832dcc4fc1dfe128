"""The demo inside GRASS: an invented village, the four commands, scores and pictures.

``demo/run`` starts it in a temporary project. In a GRASS session of your own: ``python3 demo/workflow.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pictures
import village
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")
WEST, NORTH = 600_000, 5_300_000
NULL = -9999
GROUNDS = {
    "truth_untouched": "Ground that no patch touched",
    "truth_unlabelled": "All ground without label",
}
"""Rasters of the truth to score with, and what they are called."""


@dataclass(frozen=True)
class Plan:
    """How large the demo is.

    Attributes:
        size: side of the village in metres.
        stride: from patch to patch in metres.
        block: side of the blocks of ground that belong to one part, in metres.
        epochs: of training.
    """

    size: int
    stride: int
    block: int
    epochs: int


FULL = Plan(size=640, stride=24, block=160, epochs=20)
SMALL = Plan(size=320, stride=16, block=80, epochs=14)
PATCH = 64  # cells


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "demo" / "output", help="directory for the pictures")
    parser.add_argument("--small", action="store_true", help="a village of a quarter of the ground: quicker, worse map")
    parser.add_argument("--epochs", type=int, help="of training")
    options = parser.parse_args()
    plan = SMALL if options.small else FULL
    plan = replace(plan, epochs=options.epochs or plan.epochs)
    if "GISRC" not in os.environ:
        parser.error("this needs a GRASS session; start demo/run instead")
    start = time.monotonic()
    os.environ["GRASS_OVERWRITE"] = "1"
    with tempfile.TemporaryDirectory(prefix="rlearndeep_demo_") as directory:
        use_tools_of_checkout(Path(directory) / "bin")
        build_scene(plan.size)
        model = make_maps(Path(directory), plan)
        scores = score()
        pictures.draw(options.output)
        shutil.copytree(model, options.output / "model", dirs_exist_ok=True)
    (options.output / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    print_scores(scores)
    print(f"\nPictures: {options.output} (begin with overview.png). {time.monotonic() - start:.0f} seconds in all.")
    return 0


# --- running commands -------------------------------------------------------------------------------------------------


def use_tools_of_checkout(directory: Path) -> None:
    """Put the suite's commands on the PATH under their names, run by this interpreter."""
    directory.mkdir()
    for tool in TOOLS:
        (directory / tool).symlink_to(ROOT / tool / f"{tool}.py")
    places = (str(directory), os.path.dirname(sys.executable), os.environ["PATH"])
    os.environ["PATH"] = os.pathsep.join(places)


def say(text: str) -> None:
    """One line on what comes next."""
    print(f"\n{text}", flush=True)


def show(*command: str) -> None:
    """Print a command as one would type it, and run it with its messages."""
    print(f"  $ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed.")


def quietly(*command: str, stdin: str | None = None) -> str:
    """Run a command without a word unless it fails; returns its standard output."""
    done = subprocess.run(
        command, env={**os.environ, "GRASS_VERBOSE": "0"}, input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout


# --- the scene --------------------------------------------------------------------------------------------------------


def build_scene(size: int) -> None:
    """Bands, surface model, truth, label areas and segments of the village, in the current mapset."""
    say(f"Building the scene: a village of {size} x {size} m with imagery of 1 m and a surface model of 2 m.")
    survey = village.build(size)
    for band, values in survey.bands.items():
        import_raster(band, np.where(values, values.astype(np.int32), NULL), f"Reflected light, {band}")
    import_raster("height", np.where(np.isnan(survey.surface), NULL, survey.surface), "Height above the ground", size)
    quietly("r.support", "map=height", "units=m")
    quietly("g.region", "raster=red")
    import_raster("truth", survey.truth.astype(np.int32), "Land cover that the scene was drawn with")
    import_raster("mapped", np.where(survey.mapped, survey.mapped.astype(np.int32), NULL), "Mapped land cover")
    for raster in ("truth", "mapped"):
        give_classes(raster)
    digitise("mapped", "labels")
    say("Bands of both resolutions go into one group.")
    show("i.group", "group=survey", f"input={','.join((*village.BANDS, 'height'))}")
    say("Segments, as object-based image analysis uses them.")
    show("i.segment", "group=survey", "output=segments", "threshold=0.04", "minsize=10", "memory=500", "--quiet")


def import_raster(name: str, values: NDArray, title: str, side: int | None = None) -> None:
    """Import an array whose nulls are ``NULL`` as a raster with a semantic label.

    ``side`` is that of the square in metres; by default the number of rows.
    """
    side = side or values.shape[0]
    floating = values.dtype.kind == "f"
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        values.astype(np.float32 if floating else np.int32).tofile(file.name)
        quietly(
            *("r.in.bin", "-f" if floating else "-s", f"input={file.name}", f"output={name}", "bytes=4"),
            *(f"rows={values.shape[0]}", f"cols={values.shape[1]}", f"anull={NULL}", f"title={title}"),
            *(f"north={NORTH}", f"south={NORTH - side}", f"west={WEST}", f"east={WEST + side}"),
        )
    quietly("r.support", f"map={name}", f"semantic_label={name}")


def give_classes(raster: str) -> None:
    """Labels and colours of the classes."""
    labels = "".join(f"{category}:{label}\n" for category, (label, _) in village.CLASSES.items())
    colors = "".join(f"{category} {r}:{g}:{b}\n" for category, (_, (r, g, b)) in village.CLASSES.items())
    quietly("r.category", f"map={raster}", "separator=:", "rules=-", stdin=labels)
    quietly("r.colors", f"map={raster}", "rules=-", stdin=colors)


def digitise(raster: str, areas: str) -> None:
    """Areas with a text column ``class`` around the cells of a raster, outlines simplified as by hand."""
    quietly("r.to.vect", f"input={raster}", "output=outlines", "type=area")
    quietly("v.generalize", "input=outlines", "output=simple", "method=douglas", "threshold=0.9")
    quietly("v.clean", "input=simple", f"output={areas}", "tool=rmarea", "threshold=4")
    quietly("v.db.renamecolumn", f"map={areas}", "column=label,class")
    quietly("v.colors", f"map={areas}", "use=attr", "column=value", f"raster={raster}")


# --- the four commands ------------------------------------------------------------------------------------------------


def make_maps(directory: Path, plan: Plan, labels: str = "labels") -> Path:
    """From label areas to a map and a map per segment; returns the model directory."""
    patches, model = directory / "patches", directory / "model"
    say(
        f"1. Sample patches of {PATCH} x {PATCH} cells where areas are labelled. Blocks of {plan.block} m decide\n"
        "   which train, which choose the best epoch and which test; patches overlap, but never across these parts."
    )
    show(
        *("v.sample.patches", "group=survey", f"input={labels}", "column=class", "label=cells"),
        *(f"size={PATCH}", f"stride={plan.stride}", "min_labelled=15", "max_null=20", "split=block"),
        *(f"block_size={plan.block}", "buffer=0", "seed=1", "output=footprints", f"patches={patches}"),
    )
    say("2. Train a U-Net. Cells without label count neither for nor against it.")
    show(
        *("r.learn.deep.train", f"patches={patches}", f"model={model}", "architecture=unet", f"epochs={plan.epochs}"),
        *("batch_size=8", "seed=1"),
    )
    say("3. Predict the whole village, cell by cell and segment by segment.")
    show(
        *("r.learn.deep.predict", "group=survey", f"model={model}", "output=cover", "confidence=certainty"),
        *("segments=segments", "segments_output=cover_segments"),
    )
    return model


def score() -> dict[str, list[dict]]:
    """Scores of both maps against the truth, for each of ``GROUNDS``."""
    quietly("v.to.rast", "input=footprints", "output=touched", "use=val", "value=1", "type=area")
    quietly("v.to.rast", "input=labels", "output=labelled", "use=val", "value=1", "type=area")
    quietly("r.mapcalc", "expression=truth_untouched = if(isnull(touched), truth, null())")
    quietly("r.mapcalc", "expression=truth_unlabelled = if(isnull(labelled), truth, null())")
    say("4. Compare both maps with the truth, on ground the network has not learned from.")
    scores = {}
    for reference, name in GROUNDS.items():
        give_classes(reference)
        command = ("r.learn.deep.evaluate", "input=cover,cover_segments", f"reference={reference}", "format=json")
        print(f"  $ {shlex.join(command)}", flush=True)
        scores[name] = json.loads(quietly(*command))["maps"]
    return scores


def print_scores(scores: dict[str, list[dict]]) -> None:
    """Both maps side by side."""
    for name, maps in scores.items():
        print(f"\n{name:34}{'cells':>10}{'segments':>10}")
        for key, title in (("overall_accuracy", "overall accuracy"), ("kappa", "kappa"), ("f1_macro", "F1, mean")):
            print(f"  {title:32}" + "".join(f"{entry[key]:10.3f}" for entry in maps))
        for rows in zip(*(entry["classes"] for entry in maps), strict=True):
            print(f"  {'F1 ' + rows[0]['label']:32}" + "".join(f"{row['f1']:10.3f}" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
