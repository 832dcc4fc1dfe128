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
# % multiple: yes
# % label: Imagery group whose bands are sampled
# % description: Several groups with the same bands are acquisitions (dates): every place is sampled in each
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
# % label: Column of the label
# % description: Integers are classes, text is numbered in sorted order, floating point values are for regression
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
# % description: Categories, labels and colours are kept; floating point values are for regression
# % guisection: Labels
# %end

# %option G_OPT_F_INPUT
# % key: levels
# % required: no
# % label: Table of levels (CSV): a column per level, the finest first, a line per class
# % description: The coarser classes stay in the dataset
# % guisection: Labels
# %end

# %option
# % key: level
# % type: string
# % required: no
# % key_desc: name
# % label: Level that is the label
# % description: A column of levels; default: that of the labels themselves
# % guisection: Labels
# %end

# %option
# % key: label
# % type: string
# % required: no
# % answer: cells
# % options: cells,inside,majority,center,object,presence,density
# % label: What is labelled, and how
# % descriptions: cells;a label per cell;inside;one label, the patch lies strictly inside one area;majority;one label, the commonest class or the mean value;center;one label, that of the centre cell;object;one patch per area, its bounding box, padded;presence;several labels, the classes that occur;density;points per cell, cut and scaled to 0..1
# % guisection: Labels
# %end

# %option
# % key: percentile
# % type: double
# % required: no
# % options: 0-100
# % label: Percentile of points per cell that becomes 1 with label=density
# % description: Over the cells that hold points; 100 is the largest number. Default: 97
# % guisection: Labels
# %end

# %option G_OPT_V_INPUT
# % key: agreement
# % required: no
# % label: Vector or raster map of the same labels by another mapper
# % description: Cells in which the two maps disagree are not labelled
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
# % multiple: yes
# % label: Raster map of cells whose labels are not used, for example clouds; or one per group
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

# %option G_OPT_I_GROUP
# % key: auxiliary
# % required: no
# % multiple: yes
# % label: Imagery groups of other sensors or resolutions, sampled at the same places
# % description: In their own cells, which need not fit those of the region
# % guisection: Sources
# %end

# %option G_OPT_I_GROUP
# % key: series
# % required: no
# % multiple: yes
# % label: Time series: imagery groups with the same bands in the order of their dates
# % description: Sampled at the same places in their own cells
# % guisection: Sources
# %end

# %option
# % key: dates
# % type: string
# % required: no
# % multiple: yes
# % key_desc: YYYY-MM-DD
# % label: Dates of the groups of the series
# % description: Default: the time stamps of their maps
# % guisection: Sources
# %end

# %option
# % key: auxiliary_size
# % type: integer
# % required: no
# % multiple: yes
# % key_desc: cells
# % label: Rows and columns of patches of further sources in their own cells: one number, or one for each
# % description: In the order of auxiliary, then series; default: the ground of a patch; more gives context
# % guisection: Sources
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
# % description: Number of places at most, chosen at random; with several groups each is sampled in all
# % guisection: Patches
# %end

# %option
# % key: per_class
# % type: integer
# % required: no
# % description: Number of places at most of each class, chosen at random
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
# % description: One cell in any case; default: 50 for label=majority, 100 for presence, otherwise 0
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
# % options: block,random,class,column,acquisition,none
# % label: How patches are divided among training, validation and test
# % descriptions: block;whole blocks of ground, with a buffer;random;by chance, scores flatter;class;by chance within each class, scores flatter;column;by a column of the input vector map;acquisition;whole acquisitions, the same ground in several parts;none;all for training
# % guisection: Split
# %end

# %option
# % key: shares
# % type: double
# % required: no
# % multiple: yes
# % key_desc: share
# % description: Shares of training, validation and test. Default: 70,15,15
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
# % description: Values of split_column, or groups, that form the validation part
# % guisection: Split
# %end

# %option
# % key: test
# % type: string
# % required: no
# % multiple: yes
# % description: Values of split_column, or groups, that form the test part
# % guisection: Split
# %end

# %option
# % key: seed
# % type: integer
# % required: no
# % answer: 1
# % description: Seed of all random choices
# %end

# %option G_OPT_M_NPROCS
# % description: Number of threads that read bands, and that cut patches, side by side
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
# % requires: level,levels
# % requires: agreement,input,raster
# % requires: dates,series
# % requires: auxiliary_size,auxiliary,series
# % requires: ignore_values,ignore
# %end

import locale
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import grass.script as gs


def read_utf8() -> None:
    """Take the texts of GRASS for UTF-8 in a locale of ASCII, too: LC_ALL=C, or one that is not installed here."""
    if locale.nl_langinfo(locale.CODESET) in ("ANSI_X3.4-1968", "US-ASCII"):
        with suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
            os.environ["LC_ALL"] = "C.UTF-8"  # the C library asks again with its first message


def find_library() -> None:
    """Put the suite's library on the path: the one beside this script, in a checkout or an installation, else GRASS's."""
    around = os.path.join(os.path.dirname(os.path.realpath(__file__)), os.pardir)
    for place in (os.path.join(around, "lib"), os.path.join(around, "etc", "r.learn.deep"), ""):
        # GRASS's own search starts other programs.
        place = place or gs.utils.get_lib_path(modname="r.learn.deep", libname="rlearndeep") or ""
        if os.path.isdir(os.path.join(place, "rlearndeep")):
            sys.path.insert(0, place)
            return
    gs.fatal(_("The library of r.learn.deep was not found beside the tool or in GRASS_ADDON_BASE. Install it again."))


def read_settings(options: dict):
    """The user's wishes as one checked value."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.sampling.settings import Settings, Split, shares_of
    from rlearndeep.scene.numbers import read_number

    def number(key: str, kind=float):
        return read_number(key, options[key], kind) if options[key] else None

    def pair(key: str):
        sides = whole_numbers(options, key)
        if len(sides) > 2:
            raise DeepLearningError(
                _("{}= is rows[,columns]; got {}. Give one or two numbers.").format(key, options[key])
            )
        return (sides[0], sides[-1]) if sides else None

    def values(key: str):
        return tuple(value.strip() for value in options[key].split(",")) if options[key] else ()

    split = Split(
        kind=options["split"],
        shares=shares_of(options["shares"] or "70,15,15"),
        block_size=number("block_size"),
        buffer=number("buffer"),
        validation=values("validation"),
        test=values("test"),
    )
    if options["shares"]:
        split.check_shares()
    return Settings(
        size=pair("size") or (None if options["label"] == "object" else (64, 64)),
        rule=options["label"],
        placement=options["placement"],
        stride=pair("stride"),
        number=number("number", int),
        per_class=number("per_class", int),
        max_null=number("max_null"),
        min_labelled=number("min_labelled"),
        drop_duplicates=options["duplicates"] == "drop",
        background=number("background", int),
        percentile=number("percentile"),
        split=split,
        seed=number("seed", int),
        memory=number("memory", int),
        workers=threads(options),
    )


def threads(options: dict) -> int:
    """Threads to use: as many as there are processors for 0."""
    from rlearndeep.scene.numbers import read_number

    return read_number("nprocs", options["nprocs"], int) or os.cpu_count() or 1


def several(text: str) -> list[str]:
    """The values of an option that takes several."""
    return [value.strip() for value in text.split(",")] if text else []


def whole_numbers(options: dict, key: str) -> list[int]:
    """The numbers of an option that takes several."""
    from rlearndeep.scene.numbers import read_number

    return [read_number(key, value, int) for value in several(options[key])]


class Labels(NamedTuple):
    """A label source.

    Attributes:
        table: what its codes mean.
        source: where they are read: a raster, or a plane of points.
        cells: rows and columns of the points for placement=points.
        numbered: the classes are texts, whose categories say nothing by themselves.
        raster: name of the raster that the user gave, if any.
    """

    table: Any
    source: Any
    cells: tuple | None = None
    numbered: bool = False
    raster: str = ""


def open_labels(options: dict, settings, region, vector: str, raster: str) -> Labels:
    """Labels of a vector, of a raster, or none."""
    from rlearndeep.gis.labels import holds_values, raster_classes, raster_values
    from rlearndeep.sampling.labels import PointPlane, empty_table, raster_table, value_raster_table
    from rlearndeep.sampling.levels import raise_classes
    from rlearndeep.sampling.scene import LABEL_SHARE
    from rlearndeep.scene.levels import LevelTable

    if not vector and not raster:
        return Labels(empty_table(), PointPlane.empty())
    levels = LevelTable.read(options["levels"]) if options["levels"] else None
    if vector:
        return open_vector_labels(options, settings, region, vector, levels)
    if holds_values(raster):
        quantity, source = raster_values(raster)
        settings.check_values(quantity.name, has_areas=False)
        return Labels(value_raster_table(quantity), source, raster=raster)
    classes, source = raster_classes(raster, region, int(LABEL_SHARE * settings.memory))
    if levels is None:
        return Labels(raster_table(classes, source.first, source.last), source, raster=raster)
    raised = raise_classes(levels, classes, options["level"])
    table = raster_table(raised.classes, source.first, source.last, raised.category)
    return Labels(table, source, numbered=raised.numbered, raster=raster)


def open_vector_labels(options: dict, settings, region, name: str, levels) -> Labels:
    """Labels of a vector."""
    from rlearndeep.gis.labels import LabelRaster
    from rlearndeep.gis.vectors import open_features, open_places, rasterize_areas, read_points, selected
    from rlearndeep.sampling.labels import PointPlane, density_table

    if settings.rule == "density":
        vector = open_places(name, options["layer"], options["where"])
    else:
        vector = open_features(name, options["layer"], options["column"], options["where"], options["split_column"])
    settings.check_kind(vector.kind)
    if vector.beside:
        gs.warning(
            _("Vector map <{}> holds areas and {} points; labels come from the areas alone.").format(
                vector.name, vector.beside
            )
        )
    if vector.unlabelled:
        gs.warning(
            _("{} features of <{}> have no label; their cells are unlabelled.").format(vector.unlabelled, vector.name)
        )
    if vector.kind == "area":
        areas = rasterize_areas(vector)
        table, numbered = table_of_features(options, settings, vector, areas.features, levels)
        return Labels(table, LabelRaster(areas.name, areas.first, areas.last), numbered=numbered)
    points = read_points(vector, region)
    wanted = points.take(selected(vector, points.feature))
    cells = region.cell_at(wanted.east, wanted.north)
    if settings.rule == "density":
        wanted = wanted.each_once()
        source = PointPlane.of(region, wanted.east, wanted.north, wanted.feature)
        table, most = density_table(source.counts, settings.density_percentile)
        gs.message(_("A density of 1 stands for {:g} points per cell or more.").format(most))
        return Labels(table, source, cells)
    source = PointPlane.of(region, points.east, points.north, points.feature)
    table, numbered = table_of_features(options, settings, vector, source.features, levels)
    return Labels(table, source, cells, numbered)


def table_of_features(options: dict, settings, vector, codes, levels):
    """What the codes of a label vector mean, and whether its classes are texts that were numbered."""
    from rlearndeep.sampling.labels import feature_table, number_classes, value_table
    from rlearndeep.sampling.levels import raise_classes
    from rlearndeep.scene.tasks import Quantity

    features = list(vector.values)
    if vector.is_floating:
        settings.check_values(options["column"], has_areas=True)
        return value_table(codes, features, vector.numbers(), Quantity(options["column"]), vector.groups), False
    classes, category = number_classes(vector.values, vector.colors)
    numbered = any(entry.label for entry in classes)
    if levels is not None:
        raised = raise_classes(levels, classes, options["level"])
        classes, numbered = raised.classes, numbered or raised.numbered
        category = {feature: raised.category[number] for feature, number in category.items()}
    return feature_table(codes, features, classes, category, vector.groups), numbered


def open_agreement(options: dict, settings, region, labels: Labels) -> Labels | None:
    """The label map that must agree, a vector or a raster."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.sampling.settings import Settings

    name = options["agreement"]
    if not name:
        return None
    if labels.table.quantity is not None:
        raise DeepLearningError(
            _("agreement= compares classes; the labels are values of {}. Leave agreement= out.").format(
                labels.table.quantity.name
            )
        )
    is_vector = bool(options["input"] and gs.find_file(name, element="vector")["file"])
    plain = {**options, "where": "", "split_column": "", "layer": options["layer"] if is_vector else "1"}
    # What the user wishes of the labels says nothing of the map they are compared with.
    anything = Settings(size=(1, 1), memory=settings.memory)
    other = open_labels(plain, anything, region, name if is_vector else "", "" if is_vector else name)
    if other.table.quantity is not None:
        raise DeepLearningError(_("agreement= compares classes; <{}> holds values. Choose another map.").format(name))
    return other


def open_ignored(options: dict, acquisitions: int) -> list:
    """Cells whose labels are not used, per acquisition."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.labels import IgnoredCells

    names = several(options["ignore"])
    if names and len(names) not in (1, acquisitions):
        raise DeepLearningError(
            _("ignore= names one raster map for all groups, or one for each; got {} for {} groups.").format(
                len(names), acquisitions
            )
            + " "
            + _("Name one, or one for each.")
        )
    values = tuple(whole_numbers(options, "ignore_values"))
    cells = [IgnoredCells(name, values) for name in names]
    return cells * acquisitions if len(cells) == 1 else cells or [None] * acquisitions


def open_further(options: dict) -> list:
    """Auxiliary groups and the series, with the size of their patches where it was given."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.sources import open_auxiliary, open_series

    readers = threads(options)
    further = open_auxiliary(several(options["auxiliary"]), readers)
    if options["series"]:
        further.append(open_series(several(options["series"]), several(options["dates"]), readers))
    sizes = whole_numbers(options, "auxiliary_size")
    if sizes and (len(sizes) not in (1, len(further)) or min(sizes) < 1):
        raise DeepLearningError(
            _("auxiliary_size= is one number of cells, or one for each of the {} further sources; got {}.").format(
                len(further), options["auxiliary_size"]
            )
            + " "
            + _("Give one, or one for each.")
        )
    for remark in (remark for source in further for remark in source.remarks()):
        gs.warning(remark)
    if not sizes:
        return further
    return [
        source.of_size(size, size) for source, size in zip(further, sizes * (len(further) // len(sizes)), strict=True)
    ]


def with_sizes(options: dict, further: list, plan, region) -> list:
    """Further sources with the size of their patches, which by default cover the ground of the reference's."""
    from rlearndeep.sampling.sources import patch_size

    if options["auxiliary_size"]:
        return further
    return [source.of_size(*patch_size(plan.size, region, source.region)) for source in further]


def open_files(options: dict, settings, region, groups, labels: Labels, other: Labels | None):
    """The rasters of imagery and labels."""
    from rlearndeep.gis.groups import grid_remarks
    from rlearndeep.gis.labels import SceneFiles
    from rlearndeep.gis.rasters import raster_info

    for remark in (remark for group in groups for remark in grid_remarks(group.rasters, region)):
        gs.warning(remark)
    ignored = open_ignored(options, len(groups))
    for name in filter(None, [labels.raster, other.raster if other else "", *several(options["ignore"])]):
        if not raster_info(name).region.is_aligned_with(region):
            gs.warning(
                _("Raster map <{}> has another grid than the region; it is read by nearest neighbour.").format(name)
            )
    if labels.table.conflicts:
        gs.warning(
            _("In {} places features of different classes lie upon each other; such cells are unlabelled.").format(
                labels.table.conflicts
            )
        )
    sources = [labels.source, *([other.source] if other else [])]
    return SceneFiles(groups, region, sources, ignored, threads(options))


def write(plan, files, scenes, settings, options: dict, extra: dict, started: float) -> dict:
    """Write directory and footprints, which appear together or not at all; the report."""
    from rlearndeep.gis.footprints import publish, write_footprints
    from rlearndeep.gis.projections import extent_degrees, projection
    from rlearndeep.gis.session import command_line, deaf, show_progress
    from rlearndeep.patches import PatchWriter
    from rlearndeep.sampling.plan import complete, describe, write_plan
    from rlearndeep.sampling.report import add_contents, check_apart, summarize

    region, further = scenes[0].region, extra.pop("further")
    manifest = describe(plan, scenes, settings, further)
    with PatchWriter(options["patches"], manifest, len(plan.patches), gs.overwrite()) as writer:
        told = partial(show_progress, step=5)
        plan, sources = write_plan(plan, scenes, settings, writer, told, further, files.close)
        summary = {**summarize(plan, scenes, further), **extra}
        add_contents(summary, writer, plan.part)
        check_apart(settings, summary)
        tell(plan, settings, summary)
        footprints, kind = write_footprints(
            writer, plan.acquisitions, plan.patches.height, plan.patches.width, options["output"]
        )
        if kind == "lines":
            gs.warning(_("Footprints that overlap off a common grid cannot be areas; they are closed lines."))
        summary["seconds"] = round(time.perf_counter() - started, 2)
        report = {**summary, **plan.settings_json(settings)}
        whole = complete(
            describe(plan, scenes, settings, further),
            sources,
            report,
            projection(),
            extent_degrees(region),
            command_line(),
        )
        writer.finish(whole)
        with deaf():
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
    """Open everything, then plan, write and report."""
    from rlearndeep.backends.machine import keep_memory
    from rlearndeep.files import check_listable
    from rlearndeep.gis.footprints import check_output
    from rlearndeep.gis.groups import open_groups
    from rlearndeep.gis.session import current_region, say
    from rlearndeep.patches import check_new_directory
    from rlearndeep.sampling.agreement import AgreedPlane
    from rlearndeep.sampling.report import plain_text

    started = time.perf_counter()
    keep_memory()
    settings = read_settings(options)
    check_listable(options["patches"], "patches")
    if not flags["n"]:
        check_new_directory(options["patches"], gs.overwrite())
    check_output(options["output"], [options["input"], options["agreement"]])
    settings.check_labels(*(options[key] for key in ("input", "raster", "column", "split_column", "layer")))
    region = current_region()
    groups = open_groups(several(options["group"]))
    further = open_further(options)
    labels = open_labels(options, settings, region, options["input"], options["raster"])
    other = open_agreement(options, settings, region, labels)
    extra: dict = {"further": further}
    with open_files(options, settings, region, groups, labels, other) as files:
        plane = files.planes[0]
        if other:
            by_label = labels.numbered or other.numbered
            plane = AgreedPlane.of(plane, labels.table, files.planes[1], other.table, by_label)
            extra["agreement"] = plane.share(region)
        summary = sample(files, plane, labels, settings, options, flags, extra, started)
    if options["format"] == "plain":
        say(plain_text(summary))
    return summary


def check_shares(options: dict, split, groups) -> None:
    """Refuse shares that were given beside a column that names the part of each place."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.sampling.splits import names_parts

    if options["shares"] and names_parts(split, groups):
        raise DeepLearningError(
            _("shares= divide places among the parts; the column <{}> names the part of each. Leave it out.").format(
                options["split_column"]
            )
        )


def sample(files, plane, labels: Labels, settings, options: dict, flags: dict, extra: dict, started: float) -> dict:
    """Plan, and write unless only the plan is wanted; the report."""
    from rlearndeep.sampling.plan import make_plan
    from rlearndeep.sampling.report import check_apart, summarize

    scenes = files.scenes(plane)
    cells = labels.cells if settings.placement == "points" else None
    # A plan reads no bands, and what looks the same in the bands may differ in further sources.
    reads_only_labels = flags["n"] or extra["further"]
    wishes = replace(settings, drop_duplicates=False) if reads_only_labels else settings
    check_shares(options, settings.split, labels.table.groups)
    plan = make_plan(scenes, labels.table, wishes, cells, several(options["group"]))
    extra["further"] = with_sizes(options, extra["further"], plan, files.region)
    if not flags["n"]:
        return write(plan, files, scenes, settings, options, extra, started)
    summary = {**summarize(plan, scenes, extra.pop("further")), **extra}
    check_apart(settings, summary)
    tell(plan, settings, summary)
    summary["seconds"] = round(time.perf_counter() - started, 2)
    return summary


def main() -> None:
    """Parse, then hand over to the library."""
    read_utf8()
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags)


if __name__ == "__main__":
    main()
