#!/usr/bin/env python3

############################################################################
#
# MODULE:       v.sample.patches
# AUTHOR(S):    r.learn.deep developers
# PURPOSE:      Sample image patches and their labels for deep learning
# COPYRIGHT:    (C) 2026 by the r.learn.deep developers
#
#               This program is free software under the GNU General Public
#               License (>=v2). Read the file LICENSE that comes with it.
#
############################################################################

# %module
# % description: Samples image patches and their labels from an imagery group for deep learning.
# % keyword: vector
# % keyword: sampling
# % keyword: deep learning
# % keyword: patches
# % keyword: training data
# %end

# %option G_OPT_I_GROUP
# % key: group
# % description: Imagery group whose bands are sampled
# %end

# %option G_OPT_V_OUTPUT
# % key: output
# % description: Name for output vector map of the footprints of patches
# %end

# %option
# % key: patches
# % type: string
# % required: yes
# % key_desc: path
# % label: Directory for the patches
# % description: Made by this tool; training reads it
# % gisprompt: old,dir,dir
# %end

# %option G_OPT_V_INPUT
# % key: input
# % required: no
# % label: Vector map of labels, areas or points
# % guisection: Labels
# %end

# %option G_OPT_V_FIELD
# % key: layer
# % guisection: Labels
# %end

# %option G_OPT_DB_COLUMN
# % key: column
# % description: Column of the class: integers, or text that is numbered in sorted order
# % guisection: Labels
# %end

# %option G_OPT_DB_WHERE
# % key: where
# % guisection: Labels
# %end

# %option G_OPT_R_INPUT
# % key: raster
# % required: no
# % label: Raster map of labels instead of a vector map
# % description: Categories, labels and colours are kept
# % guisection: Labels
# %end

# %option
# % key: label
# % type: string
# % required: no
# % answer: cells
# % options: cells,inside,majority,center,object
# % label: What is labelled, and how
# % descriptions: cells;a label per cell;inside;one label, the patch lies strictly inside one area;majority;one label, the commonest class;center;one label, the class of the centre cell;object;one patch per area, its bounding box, padded
# % guisection: Labels
# %end

# %option
# % key: background
# % type: integer
# % required: no
# % label: Category of cells without label
# % description: They become a class 'background'; without this option they stay unlabelled and are never trained on
# % guisection: Labels
# %end

# %option G_OPT_R_INPUT
# % key: ignore
# % required: no
# % label: Raster map of cells whose labels are not used, for example clouds
# % description: All cells that are not null, or those with ignore_values
# % guisection: Labels
# %end

# %option
# % key: ignore_values
# % type: integer
# % required: no
# % multiple: yes
# % description: Values of the ignore raster map that mean ignore
# % guisection: Labels
# %end

# %option
# % key: size
# % type: integer
# % required: no
# % multiple: yes
# % key_desc: cells
# % label: Size of a patch in cells of the region: rows, or rows,columns; 1 means single cells
# % description: Default: 64; for label=object: the largest area
# % guisection: Patches
# %end

# %option
# % key: placement
# % type: string
# % required: no
# % answer: grid
# % options: grid,random,points
# % label: Where patches are placed
# % descriptions: grid;every stride cells from the north-west corner of the region;random;at random, number or per_class of them;points;around the points of the input vector map
# % guisection: Patches
# %end

# %option
# % key: stride
# % type: integer
# % required: no
# % multiple: yes
# % key_desc: cells
# % label: Step of the grid in cells: rows, or rows,columns
# % description: Default: the size; smaller makes patches overlap
# % guisection: Patches
# %end

# %option
# % key: number
# % type: integer
# % required: no
# % description: Number of patches at most, chosen at random
# % guisection: Patches
# %end

# %option
# % key: per_class
# % type: integer
# % required: no
# % description: Number of patches at most of each class, chosen at random
# % guisection: Patches
# %end

# %option
# % key: max_null
# % type: double
# % required: no
# % answer: 0
# % options: 0-100
# % description: Percent of null cells allowed in a patch
# % guisection: Patches
# %end

# %option
# % key: min_labelled
# % type: double
# % required: no
# % options: 0-100
# % label: Percent of labelled cells needed in a patch
# % description: One cell in any case; default: 50 for label=majority, otherwise 0
# % guisection: Patches
# %end

# %option
# % key: duplicates
# % type: string
# % required: no
# % answer: drop
# % options: drop,keep
# % description: What to do with patches whose bands and label are identical
# % guisection: Patches
# %end

# %option
# % key: split
# % type: string
# % required: no
# % answer: block
# % options: block,random,class,column,none
# % label: How patches are divided among training, validation and test
# % descriptions: block;whole blocks of ground, with a buffer;random;by chance, scores flatter;class;by chance within each class, scores flatter;column;by a column of the input vector map;none;all for training
# % guisection: Split
# %end

# %option
# % key: shares
# % type: double
# % required: no
# % multiple: yes
# % answer: 70,15,15
# % key_desc: share
# % description: Shares of training, validation and test
# % guisection: Split
# %end

# %option
# % key: block_size
# % type: double
# % required: no
# % label: Side of the blocks in map units
# % description: Default: about forty blocks in the region, none shorter than four patches
# % guisection: Split
# %end

# %option
# % key: buffer
# % type: double
# % required: no
# % label: Distance in map units that patches of different parts keep
# % description: Default: one patch for split=block and column, otherwise 0
# % guisection: Split
# %end

# %option G_OPT_DB_COLUMN
# % key: split_column
# % label: Column that names the part, or the places that are kept whole
# % description: For example the category column to leave whole polygons out
# % guisection: Split
# %end

# %option
# % key: validation
# % type: string
# % required: no
# % multiple: yes
# % description: Values of split_column that form the validation part
# % guisection: Split
# %end

# %option
# % key: test
# % type: string
# % required: no
# % multiple: yes
# % description: Values of split_column that form the test part
# % guisection: Split
# %end

# %option
# % key: seed
# % type: integer
# % required: no
# % answer: 1
# % description: Seed of all random choices
# %end

# %option G_OPT_MEMORYMB
# %end

# %option
# % key: format
# % type: string
# % required: no
# % answer: plain
# % options: plain,json
# % description: Output format of the report
# % guisection: Print
# %end

# %flag
# % key: n
# % label: Plan and report only
# % description: Cells of the bands are not read, so duplicates are not known
# % guisection: Print
# %end

# %rules
# % exclusive: input,raster
# % exclusive: number,per_class
# % requires: column,input
# % requires: where,input
# % requires: ignore_values,ignore
# %end

import os
import sys
import time

import grass.script as gs


def find_library() -> None:
    """Put the suite's library on the path: the one beside this script, in a checkout or an installation, else GRASS's."""
    around = os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir)
    installed = gs.utils.get_lib_path(modname="r.learn.deep", libname="rlearndeep") or ""
    for place in (os.path.join(around, "lib"), os.path.join(around, "etc", "r.learn.deep"), installed):
        if os.path.isdir(os.path.join(place, "rlearndeep")):
            sys.path.insert(0, place)
            return
    gs.fatal(_("The library of r.learn.deep was not found beside the tool or in GRASS_ADDON_BASE. Install it again."))


def read_settings(options: dict):
    """The user's wishes as one checked value."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.sampling.settings import Settings, Split, shares_of

    def number(key: str, kind=float):
        return kind(options[key]) if options[key] else None

    def pair(key: str):
        sides = [int(side) for side in options[key].split(",")] if options[key] else []
        if len(sides) > 2:
            raise DeepLearningError(
                _("{}= is rows[,columns]; got {}. Give one or two numbers.").format(key, options[key])
            )
        return (sides[0], sides[-1]) if sides else None

    def values(key: str):
        return tuple(value.strip() for value in options[key].split(",")) if options[key] else ()

    split = Split(
        kind=options["split"],
        shares=shares_of(options["shares"]),
        block_size=number("block_size"),
        buffer=number("buffer"),
        validation=values("validation"),
        test=values("test"),
    )
    return Settings(
        size=pair("size") or (None if options["label"] == "object" else (64, 64)),
        rule=options["label"],
        placement=options["placement"],
        stride=pair("stride"),
        number=number("number", int),
        per_class=number("per_class", int),
        max_null=float(options["max_null"]),
        min_labelled=number("min_labelled"),
        drop_duplicates=options["duplicates"] == "drop",
        background=number("background", int),
        split=split,
        seed=int(options["seed"]),
        memory=int(options["memory"]),
    )


def open_labels(options: dict, settings, region):
    """What label codes mean, where they are read from (a raster or points), and the cells for placement=points."""
    from rlearndeep.gis.labels import LabelRaster, raster_classes
    from rlearndeep.gis.vectors import open_vector, rasterize_areas, read_points, selected
    from rlearndeep.sampling.labels import PointPlane, feature_table, number_classes, raster_table

    if options["raster"]:
        classes, source = raster_classes(options["raster"], region)
        return raster_table(classes, source.first, source.last), source, None
    vector = open_vector(
        options["input"], options["layer"], options["column"], options["where"], options["split_column"]
    )
    settings.check_kind(vector.kind)
    if vector.unlabelled:
        gs.warning(
            _("{} features of <{}> have no label; their cells are unlabelled.").format(vector.unlabelled, vector.name)
        )
    cells = None
    if vector.kind == "area":
        areas = rasterize_areas(vector)
        features, source = areas.features, LabelRaster(areas.name, areas.first, areas.last)
    else:
        east, north, feature = read_points(vector)
        source = PointPlane.of(region, east, north, feature)
        features = source.features
        wanted = selected(vector, feature)
        cells = region.cell_at(east[wanted], north[wanted])
    classes, category = number_classes(vector.values, vector.colors)
    return feature_table(features, list(vector.values), classes, category, vector.groups), source, cells


def open_scene(options: dict, settings):
    """Imagery and labels in the current region, what the labels mean, and the cells for placement=points."""
    from rlearndeep.gis.groups import grid_remarks, open_group
    from rlearndeep.gis.labels import GroupScene, IgnoredCells
    from rlearndeep.gis.rasters import raster_info
    from rlearndeep.gis.session import current_region
    from rlearndeep.sampling.labels import IGNORED, NOTHING

    settings.check_labels(options["input"], options["raster"], options["column"], options["split_column"])
    region = current_region()
    group = open_group(options["group"])
    for remark in grid_remarks(group, region):
        gs.warning(remark)
    for name in filter(None, (options["raster"], options["ignore"])):
        if not raster_info(name).region.is_aligned_with(region):
            gs.warning(
                _("Raster map <{}> has another grid than the region; it is read by nearest neighbour.").format(name)
            )
    table, source, cells = open_labels(options, settings, region)
    if table.conflicts:
        gs.warning(
            _("In {} places features of different classes lie upon each other; such cells are unlabelled.").format(
                table.conflicts
            )
        )
    ignored = None
    if options["ignore"]:
        values = tuple(int(value) for value in options["ignore_values"].split(",")) if options["ignore_values"] else ()
        ignored = IgnoredCells(options["ignore"], values, IGNORED)
    return GroupScene(group, region, source, NOTHING, ignored), table, cells if settings.placement == "points" else None


def write(plan, scene, settings, options: dict, started: float) -> dict:
    """Write directory and footprints, which appear together or not at all; the report."""
    from rlearndeep.gis.footprints import publish, write_footprints
    from rlearndeep.gis.projections import extent_degrees, projection
    from rlearndeep.gis.session import command_line
    from rlearndeep.patches import PatchWriter
    from rlearndeep.sampling.plan import complete, describe, write_plan
    from rlearndeep.sampling.report import check_apart, summarize

    with PatchWriter(options["patches"], describe(plan, scene, settings), len(plan.patches), gs.overwrite()) as writer:
        plan, statistics = write_plan(plan, scene, settings, writer, lambda done, total: gs.percent(done, total, 5))
        summary = summarize(plan, scene)
        check_apart(settings, summary)
        tell(plan, settings, summary)
        footprints, kind = write_footprints(
            writer.index, plan.classes, scene.region, plan.patches.height, plan.patches.width
        )
        if kind == "lines":
            gs.warning(_("Footprints that overlap off a common grid cannot be areas; they are closed lines."))
        summary["seconds"] = round(time.perf_counter() - started, 2)
        manifest = complete(
            describe(plan, scene, settings),
            statistics,
            {**summary, **plan.settings_json(settings)},
            projection(),
            extent_degrees(scene.region),
            command_line(),
        )
        writer.finish(manifest)
        publish(footprints, options["output"], writer.publish)
    return summary


def tell(plan, settings, summary: dict) -> None:
    """Warnings and messages about a plan."""
    from rlearndeep.sampling.report import remarks

    for remark in remarks(plan, settings, summary):
        gs.warning(remark)
    if plan.division.block_size:
        gs.message(
            _("Blocks of {:g} map units, buffer of {:g}.").format(plan.division.block_size, plan.division.buffer)
        )


def job(options: dict, flags: dict) -> dict:
    """Plan, write, report."""
    from rlearndeep.patches import check_new_directory

    started = time.perf_counter()
    settings = read_settings(options)
    if not flags["n"]:
        check_new_directory(options["patches"], gs.overwrite())
    scene, table, cells = open_scene(options, settings)

    from rlearndeep.sampling.plan import make_plan
    from rlearndeep.sampling.report import check_apart, plain_text, summarize

    plan = make_plan(scene, table, settings, cells)
    if flags["n"]:
        summary = summarize(plan, scene)
        check_apart(settings, summary)
        tell(plan, settings, summary)
        summary["seconds"] = round(time.perf_counter() - started, 2)
    else:
        summary = write(plan, scene, settings, options, started)
    if options["format"] == "plain":
        print(plain_text(summary))
    return summary


def main() -> None:
    """Parse, then hand over to the library."""
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags)


if __name__ == "__main__":
    main()
