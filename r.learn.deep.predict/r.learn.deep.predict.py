#!/usr/bin/env python3

############################################################################
#
# MODULE:       r.learn.deep.predict
#
# AUTHOR(S):    r.learn.deep developers
#
# PURPOSE:      Predicts a class map of an imagery group with trained networks
#
# COPYRIGHT:    (C) 2026 by the r.learn.deep developers
#
#               This program is free software under the GNU General Public
#               License (>=v2). Read the file LICENSE that comes with the
#               suite for details.
#
#############################################################################

# %module
# % description: Predicts a class map of an imagery group with a trained network, cell by cell or segment by segment.
# % keyword: raster
# % keyword: imagery
# % keyword: classification
# % keyword: deep learning
# % keyword: machine learning
# % keyword: OBIA
# %end

# %option G_OPT_I_GROUP
# % key: group
# % description: Imagery group with the bands the model was trained with
# %end

# %option G_OPT_M_DIR
# % key: model
# % required: yes
# % multiple: yes
# % label: Model directory of r.learn.deep.train
# % description: The scores of several models are averaged
# %end

# %option G_OPT_R_OUTPUT
# % description: Name for the class map
# %end

# %option
# % key: probabilities
# % type: string
# % key_desc: basename
# % label: Basename for maps of class probabilities
# % description: One map per class, <basename>_<category>
# % guisection: Certainty
# %end

# %option G_OPT_R_OUTPUT
# % key: confidence
# % required: no
# % description: Name for a map of the probability of the class in the class map
# % guisection: Certainty
# %end

# %option G_OPT_R_OUTPUT
# % key: margin
# % required: no
# % description: Name for a map of the best minus the second best probability
# % guisection: Certainty
# %end

# %option G_OPT_R_OUTPUT
# % key: entropy
# % required: no
# % description: Name for a map of the entropy of the probabilities: 0 certain, 1 undecided
# % guisection: Certainty
# %end

# %option G_OPT_R_INPUT
# % key: segments
# % required: no
# % label: Segmentation raster
# % description: Integer map with one id per segment, e.g. of i.segment
# % guisection: Segments
# %end

# %option G_OPT_R_OUTPUT
# % key: segments_output
# % required: no
# % description: Name for a class map with one class per segment
# % guisection: Segments
# %end

# %option G_OPT_F_OUTPUT
# % key: segments_table
# % required: no
# % description: Name for a table (CSV) of classes and probabilities per segment
# % guisection: Segments
# %end

# %option
# % key: aggregate
# % type: string
# % options: mean,majority
# % label: How the cells of a segment decide its class
# % description: Default: mean
# % descriptions: mean;class with the highest mean probability;majority;commonest class of the cells
# % guisection: Segments
# %end

# %option
# % key: overlap
# % type: integer
# % label: Cells that neighbouring tiles share
# % description: Default: derived from the network's reach
# % guisection: Tiles
# %end

# %option
# % key: blend
# % type: string
# % options: linear,cosine,crop,none
# % answer: linear
# % description: How overlapping tiles are joined
# % descriptions: linear;straight ramps;cosine;smooth ramps;crop;each cell from the nearer tile;none;no overlap
# % guisection: Tiles
# %end

# %option
# % key: stride
# % type: integer
# % label: Cells per answer of a model that answers once per patch
# % description: Default: a quarter of the patch
# % guisection: Tiles
# %end

# %option
# % key: batch_size
# % type: string
# % answer: auto
# % label: Tiles or patches computed at once
# % description: A number, or auto
# % guisection: Computing
# %end

# %option
# % key: precision
# % type: string
# % options: auto,32,bf16
# % answer: auto
# % description: Floating point numbers the network computes with
# % descriptions: auto;the fastest that hardly changes the map;32;32 bit;bf16;16 bit (bfloat16)
# % guisection: Computing
# %end

# %option
# % key: device
# % type: string
# % answer: auto
# % label: Device the network runs on
# % description: auto, cpu, cuda, cuda:N or mps
# % guisection: Computing
# %end

# %option G_OPT_MEMORYMB
# % label: Memory for strips of the map, in MB
# % description: The network and its batches come on top
# % guisection: Computing
# %end

# %option G_OPT_M_NPROCS
# % answer: 0
# % label: Number of threads
# % description: 0: all processors
# % guisection: Computing
# %end

# %option
# % key: format
# % type: string
# % options: plain,json
# % answer: plain
# % description: Output format
# % descriptions: plain;human readable text;json;JSON (JavaScript Object Notation)
# % guisection: Print
# %end

# %rules
# % requires: segments_output, segments
# % requires: segments_table, segments
# % requires: aggregate, segments
# % requires: segments, segments_output, segments_table
# %end

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs

# Cells this much larger or smaller than those of the training show the network other things.
_RESOLUTION_RATIO = 1.25


def find_library() -> None:
    """Put the suite's library on the path: the one beside this script, in a checkout or an installation, else GRASS's."""
    around = os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir)
    installed = gs.utils.get_lib_path(modname="r.learn.deep", libname="rlearndeep") or ""
    for place in (os.path.join(around, "lib"), os.path.join(around, "etc", "r.learn.deep"), installed):
        if os.path.isdir(os.path.join(place, "rlearndeep")):
            sys.path.insert(0, place)
            return
    gs.fatal(
        _("The library of r.learn.deep was not found beside the tool or in GRASS_ADDON_BASE. Install the add-on again.")
    )


@dataclass(frozen=True)
class Settings:
    """The options, converted."""

    group: str
    models: tuple[Path, ...]
    outputs: dict[str, str]
    probabilities: str
    segments: str
    segments_table: Path | None
    aggregate: str
    overlap: int | None
    blend: str
    stride: int | None
    batch_size: int | None
    precision: str
    device: str
    memory: int
    nprocs: int


def read_options(options: dict) -> Settings:
    """Settings of the parser's options."""
    from rlearndeep.errors import DeepLearningError

    batch_size = options["batch_size"]
    if batch_size != "auto" and not (batch_size.isdigit() and int(batch_size) > 0):
        raise DeepLearningError(
            _("The batch size must be auto or a positive number; got '{}'. Correct batch_size=.").format(batch_size)
        )
    for key, lowest in (("overlap", 0), ("stride", 1), ("memory", 1), ("nprocs", 0)):
        if options[key] and int(options[key]) < lowest:
            raise DeepLearningError(
                _("The number must be at least {}; got {}. Correct {}=.").format(lowest, options[key], key)
            )
    return Settings(
        group=options["group"],
        models=tuple(Path(name) for name in options["model"].split(",")),
        outputs={key: options[key] for key in ("output", "confidence", "margin", "entropy", "segments_output")},
        probabilities=options["probabilities"],
        segments=options["segments"],
        segments_table=Path(options["segments_table"]) if options["segments_table"] else None,
        aggregate=options["aggregate"] or "mean",
        overlap=int(options["overlap"]) if options["overlap"] else None,
        blend=options["blend"],
        stride=int(options["stride"]) if options["stride"] else None,
        batch_size=None if batch_size == "auto" else int(batch_size),
        precision=options["precision"],
        device=options["device"],
        memory=int(options["memory"]),
        nprocs=int(options["nprocs"]),
    )


def job(options: dict, flags: dict) -> dict | None:
    """Predict; returns the object that format=json prints."""
    from rlearndeep.gis.groups import open_group
    from rlearndeep.gis.rasters import raster_info
    from rlearndeep.gis.session import current_region
    from rlearndeep.model import read_card
    from rlearndeep.prediction.planning import make_plan
    from rlearndeep.prediction.segments import check_table_place
    from rlearndeep.prediction.stream import check_members
    from rlearndeep.scene.bands import match_bands

    settings = read_options(options)
    cards = [read_card(path) for path in settings.models]
    check_members(cards, [str(path) for path in settings.models])
    group = open_group(settings.group)
    positions = [match_bands(card.bands, group.bands) for card in cards]
    inputs = list(group.names)
    if settings.segments:
        inputs.append(check_segments(raster_info(settings.segments)))
    if settings.segments_table is not None:
        check_table_place(settings.segments_table)
    maps = plan_maps(settings, cards[0].classes, inputs)
    plan = make_plan(cards, settings.overlap, settings.blend, settings.stride)
    region = current_region()
    warn_of_grid(cards, group, region)
    report = predict(settings, cards, group, positions, plan, region, maps)
    if options["format"] == "plain":
        print_report(report)
    return report


def check_segments(info) -> str:
    """Full name of a segmentation raster, which must hold ids."""
    from rlearndeep.errors import DeepLearningError

    if info.type != "CELL":
        raise DeepLearningError(
            _(
                "A segmentation raster holds integer ids; <{}> is of type {}. "
                "Make one with i.segment, or convert it with r.mapcalc and int()."
            ).format(info.name, info.type)
        )
    return info.name


def plan_maps(settings: Settings, classes, inputs: list[str]) -> list[tuple]:
    """Names of all new maps with what they hold, seen to be legal, distinct and free."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.rasters import check_new_raster
    from rlearndeep.gis.session import mapset
    from rlearndeep.prediction.maps import Layer

    kinds = {"output": "class", "confidence": "confidence", "margin": "margin", "entropy": "entropy"}
    maps = [(settings.outputs[key], Layer(kind)) for key, kind in kinds.items() if settings.outputs[key]]
    if settings.probabilities:
        if "." in settings.probabilities:
            raise DeepLearningError(
                _(
                    "Names of probability maps become columns of tables and hold no dots; got probabilities={}. "
                    "Choose another basename."
                ).format(settings.probabilities)
            )
        names = [f"{settings.probabilities}_{category}" for category in classes.categories]
        maps += [(name, Layer("probability", index)) for index, name in enumerate(names)]
    if settings.outputs["segments_output"]:
        maps.append((settings.outputs["segments_output"], None))
    here = mapset()
    maps = [(name.removesuffix(f"@{here}"), layer) for name, layer in maps]
    names = [name for name, _layer in maps]
    for name in names:
        if not gs.legal_name(name) or names.count(name) > 1 or f"{name}@{here}" in inputs:
            raise DeepLearningError(
                _(
                    "Every new map needs a name of its own that is legal and not an input; got <{}>. "
                    "Choose another name."
                ).format(name)
            )
        check_new_raster(name, gs.overwrite())
    return maps


def warn_of_grid(cards: list, group, region) -> None:
    """Warn where the region shows the network other cells than those it was trained on."""
    from rlearndeep.gis.groups import grid_remarks

    for card in cards:
        ratios = [here / there for here, there in zip((region.nsres, region.ewres), card.resolution, strict=True)]
        if max(max(ratio, 1 / ratio) for ratio in ratios) > _RESOLUTION_RATIO:
            gs.warning(
                _(
                    "The region has cells of {:g} x {:g} map units, the model was trained on {:g} x {:g}; "
                    "its answers may be poor."
                ).format(region.nsres, region.ewres, *card.resolution)
            )
    remarks = grid_remarks(group, region)
    if remarks:
        more = _(" (and {} more)").format(len(remarks) - 1) if len(remarks) > 1 else ""
        gs.warning(remarks[0] + more)


def load_members(settings: Settings, cards: list, positions: list[list[int]]) -> tuple[list, list[int]]:
    """The models with their networks, and which bands of the group they need."""
    if settings.nprocs:
        # The numerical libraries read this once, when they are loaded.
        os.environ["OMP_NUM_THREADS"] = str(settings.nprocs)
    from rlearndeep.backends import get_backend
    from rlearndeep.prediction.stream import Member

    needed = list(dict.fromkeys(position for own in positions for position in own))
    members = []
    for path, card, own in zip(settings.models, cards, positions, strict=True):
        predictor = get_backend(card.backend).load(path, card, device=settings.device, precision=settings.precision)
        members.append(Member(predictor, card, tuple(needed.index(position) for position in own)))
    return members, needed


def predict(settings: Settings, cards: list, group, positions: list, plan, region, maps: list[tuple]) -> dict:
    """Load the networks, stream the region through them and write all maps."""
    from rlearndeep.gis.rasters import RasterStack, cell_areas, extent_window
    from rlearndeep.prediction.planning import starts_per_chunk
    from rlearndeep.prediction.stream import Job, strips

    classes = cards[0].classes
    columns = starts_per_chunk(plan, region, len(cards[0].bands), len(classes), len(maps), settings.memory)
    members, needed = load_members(settings, cards, positions)
    names = [group.names[position] for position in needed]
    extent = extent_window(region, [group.rasters[position].region for position in needed])
    gs.verbose(_("Device {}, precision {}.").format(members[0].predictor.device, members[0].predictor.precision))
    started = time.perf_counter()
    with RasterStack(names, region, plan.reading_window(region, extent)) as source:
        work = Job(source, region, extent, members, plan, columns, settings.batch_size)
        tally = write_all(settings, strips(work), classes, region, maps, cell_areas(region))
    seconds = time.perf_counter() - started
    describe(settings, classes, maps)
    if tally.null_cells == tally.cells:
        gs.warning(_("No cell of the region has data in all bands; the map is null everywhere."))
    return report_of(tally, classes, seconds, members[0], plan, settings.batch_size)


def write_all(settings: Settings, stream, classes, region, maps: list[tuple], areas):
    """Write every map; all of them appear at the end, or none."""
    from rlearndeep.gis.rasters import RasterStack, RasterWriter
    from rlearndeep.prediction.maps import write_maps
    from rlearndeep.prediction.segments import SegmentSums

    with ExitStack() as stack:
        layers = []
        for name, layer in maps:
            if layer is not None:
                kind = "int32" if layer.kind == "class" else "float32"
                layers.append((layer, stack.enter_context(RasterWriter(name, region, kind))))
        if not settings.segments:
            return write_maps(stream, classes, layers, areas, region.cols, progress=show_progress)
        raster = stack.enter_context(RasterStack([settings.segments], region, dtype="int32"))
        index = index_segments(raster)
        sums = SegmentSums(index, len(classes), settings.aggregate)
        tally = write_maps(
            stream, classes, layers, areas, region.cols, (sums, lambda window: ids_at(raster, window)), show_progress
        )
        write_segments(settings, stack, raster, index, sums.result(), classes)
        return tally


def show_progress(done: int, total: int) -> None:
    """Progress in rows."""
    gs.percent(done, total, 2)


def ids_at(raster, window) -> tuple:
    """Segment ids of a window, and where there is a segment."""
    ids = raster.read(window)[0]
    return ids, ids != raster.null


def row_windows(region) -> list:
    """Windows of few whole rows."""
    from rlearndeep.scene.geometry import Window

    rows = 256
    return [Window(first, min(first + rows, region.rows), 0, region.cols) for first in range(0, region.rows, rows)]


def index_segments(raster):
    """The ids that occur in the region."""
    from rlearndeep.prediction.segments import SegmentIndex

    found = (ids_at(raster, window) for window in row_windows(raster.region))
    index = SegmentIndex.of(ids[segment] for ids, segment in found)
    if not len(index):
        gs.warning(_("The segmentation raster <{}> is null everywhere in the region.").format(raster.names[0]))
    return index


def write_segments(settings: Settings, stack: ExitStack, raster, index, result, classes) -> None:
    """Write the map and the table of segments; both appear when the stack is left without an error."""
    from rlearndeep.gis.rasters import CELL_NULL, RasterWriter
    from rlearndeep.prediction.segments import segment_table, table_file

    if settings.segments_table is not None:
        stack.enter_context(table_file(settings.segments_table, segment_table(result, classes)))
    if not settings.outputs["segments_output"]:
        return
    writer = stack.enter_context(RasterWriter(settings.outputs["segments_output"], raster.region))
    categories = result.categories(classes, CELL_NULL)
    for window in row_windows(raster.region):
        ids, segment = ids_at(raster, window)
        rows = ids.copy()
        rows[segment] = categories[index.positions(ids[segment])]
        writer.write(rows)


def describe(settings: Settings, classes, maps: list[tuple]) -> None:
    """Give the maps categories, colours, titles, units and their history."""
    from rlearndeep.gis.rasters import color_scores, describe_raster, write_class_table

    source = _("imagery group {}").format(settings.group)
    model = ", ".join(path.name for path in settings.models)
    titles = {
        "class": _("Classes predicted with {}").format(model),
        "confidence": _("Probability of the predicted class"),
        "margin": _("Best minus second best class probability"),
        "entropy": _("Entropy of the class probabilities, 0..1"),
    }
    for name, layer in maps:
        if layer is None:
            write_class_table(name, classes)
            title = _("Classes of the segments <{}> predicted with {}").format(settings.segments, model)
            describe_raster(name, title, _("Model {}").format(model), source=source)
        elif layer.kind == "class":
            write_class_table(name, classes)
            describe_raster(name, titles["class"], _("Model {}").format(model), source=source)
        else:
            color_scores(name)
            label = classes.labels[layer.class_index]
            title = titles.get(layer.kind) or _("Probability of class {}").format(label)
            describe_raster(name, title, _("Model {}").format(model), units=_("probability"), source=source)


def report_of(tally, classes, seconds: float, member, plan, batch_size: int | None) -> dict:
    """The object that format=json prints."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, cols = plan.input_size
    counted = zip(classes, classes.labels, tally.per_class.tolist(), tally.area.tolist(), strict=True)
    return {
        "cells": tally.cells,
        "null_cells": tally.null_cells,
        "classes": [
            {"category": entry.category, "label": label, "cells": cells, "area": area}
            for entry, label, cells, area in counted
        ],
        "seconds": round(seconds, 3),
        "cells_per_second": round(tally.cells / max(seconds, 1e-9)),
        "device": member.predictor.device,
        "batch_size": member.batch_size(rows * cols, batch_size),
        "peak_memory_mb": round(peak / (1024**2 if sys.platform == "darwin" else 1024)),
    }


def print_report(report: dict) -> None:
    """The report as text."""
    print(_("Device: {}").format(report["device"]))
    print(_("Cells: {}, null: {}").format(report["cells"], report["null_cells"]))
    print(_("Time: {:.1f} s, {:.3g} cells per second").format(report["seconds"], report["cells_per_second"]))
    print("category|label|cells|area")
    for entry in report["classes"]:
        print(f"{entry['category']}|{entry['label']}|{entry['cells']}|{entry['area']:.10g}")


def main() -> None:
    """Parse the options and run the job as GRASS users expect."""
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags)


if __name__ == "__main__":
    main()
