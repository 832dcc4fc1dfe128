#!/usr/bin/env python3

# MODULE:    r.learn.deep.evaluate
# AUTHOR(S): r.learn.deep developers
# PURPOSE:   Accuracy of class and value maps against a reference
# COPYRIGHT: (C) 2026 by the r.learn.deep developers
# SPDX-License-Identifier: GPL-2.0-or-later

# %module
# % description: Assesses the accuracy of class or value maps against a reference raster, areas or points.
# % keyword: raster
# % keyword: classification
# % keyword: accuracy
# % keyword: deep learning
# %end
# %option G_OPT_R_INPUTS
# % key: input
# % required: no
# % description: Class maps, or value maps, to assess
# % guisection: Maps
# %end
# %option G_OPT_R_INPUT
# % key: reference
# % required: no
# % label: Reference raster
# % description: Integer for class maps, floating point for value maps
# % guisection: Reference
# %end
# %option G_OPT_V_INPUT
# % key: vector
# % required: no
# % description: Reference vector with points or areas
# % guisection: Reference
# %end
# %option G_OPT_V_FIELD
# % guisection: Reference
# %end
# %option G_OPT_DB_COLUMN
# % label: Column of the reference vector, or of labels=
# % description: Categories (integer), labels of categories (text), or values (floating point)
# % guisection: Reference
# %end
# %option G_OPT_DB_WHERE
# % guisection: Reference
# %end
# %option G_OPT_R_INPUT
# % key: strata
# % required: no
# % label: Strata the reference was sampled in
# % description: Their areas weight the sample; default for points: the classes of the map
# % guisection: Sample
# %end
# %option G_OPT_F_INPUT
# % key: levels
# % required: no
# % label: Table (CSV) from a class to its parents
# % description: First column: category or label; a column per coarser level, named in the header
# % guisection: Classes
# %end
# %option
# % key: level
# % type: string
# % required: no
# % label: Level to assess
# % description: Name of a column of the table; default: all levels
# % guisection: Classes
# %end
# %option G_OPT_R_INPUT
# % key: segments
# % required: no
# % description: Segmentation raster: accuracy by object and by area as well
# % guisection: Classes
# %end
# %option G_OPT_M_DIR
# % key: model
# % required: no
# % multiple: yes
# % label: Models that made the maps: cells inside their training footprints are reported apart
# % description: With labels=, the model whose settings judge the labels
# % guisection: Training
# %end
# %option G_OPT_V_INPUT
# % key: footprints
# % required: no
# % label: Footprints written by v.sample.patches
# % description: Cells inside those of part training are reported apart
# % guisection: Training
# %end
# %option G_OPT_V_INPUT
# % key: labels
# % required: no
# % label: Label vector to judge: columns say how much a model that never saw a label doubts it
# % description: The vector that the patches were sampled from, in the current mapset
# % guisection: Label quality
# %end
# %option G_OPT_M_DIR
# % key: patches
# % required: no
# % description: Patch directory sampled from the label vector; default: the one the model was trained with
# % guisection: Label quality
# %end
# %option
# % key: folds
# % type: integer
# % required: no
# % options: 2-1000
# % answer: 5
# % description: Number of trainings, each without its share of the label areas
# % guisection: Label quality
# %end
# %option
# % key: doubt
# % type: string
# % required: no
# % answer: doubt
# % label: Column to write the doubt to: 0 to 1 for classes, standard deviations of the errors for values
# % description: Two more columns: NAME_suggested (class or value suggested instead) and NAME_cells (labels judged)
# % guisection: Label quality
# %end
# %option
# % key: device
# % type: string
# % required: no
# % answer: auto
# % key_desc: auto|cpu|cuda|cuda:N|mps
# % description: Device to train on
# % guisection: Label quality
# %end
# %option G_OPT_R_OUTPUTS
# % key: difference
# % required: no
# % label: Difference raster per input map
# % description: Pair of classes in each cell, or map minus reference for values
# % guisection: Output
# %end
# %option G_OPT_F_OUTPUT
# % key: matrix
# % required: no
# % description: Confusion matrices (CSV)
# % guisection: Output
# %end
# %option G_OPT_F_OUTPUT
# % key: report
# % required: no
# % description: Report with pictures (HTML)
# % guisection: Output
# %end
# %option
# % key: format
# % type: string
# % required: no
# % options: plain,json
# % answer: plain
# % description: Output format
# % guisection: Output
# %end
# %option G_OPT_MEMORYMB
# %end
# %rules
# % required: input,labels
# % exclusive: input,labels
# % requires: input,reference,vector
# % exclusive: reference,vector,labels
# % requires: vector,column
# % requires: column,vector,labels
# % requires: where,vector
# % requires: level,levels
# % requires_all: labels,model,column
# % requires: patches,labels
# % excludes: labels,strata,levels,segments,footprints,difference,matrix,report
# %end

import locale
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass

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
    gs.fatal(
        _("The library of r.learn.deep was not found beside the tool or in GRASS_ADDON_BASE. Install the add-on again.")
    )


@dataclass(frozen=True)
class Settings:
    """The options, read."""

    maps: list
    reference: str
    vector: str
    layer: str
    column: str
    where: str
    strata: str
    levels: str
    level: str
    segments: str
    models: list
    footprints: str
    differences: list
    matrix: str
    report: str
    memory: int

    @classmethod
    def read(cls, options):
        """Settings of the parser's options."""
        from rlearndeep.gis.session import mapset
        from rlearndeep.scene.numbers import read_number

        texts = ("reference", "vector", "layer", "column", "where", "strata", "levels", "level", "segments")
        texts += ("footprints", "matrix", "report")
        return cls(
            maps=options["input"].split(","),
            models=[name for name in options["model"].split(",") if name],
            differences=[name.removesuffix(f"@{mapset()}") for name in options["difference"].split(",") if name],
            memory=read_number("memory", options["memory"], int),
            **{key: options[key] for key in texts},
        )


def job(options, flags):
    """Assess the maps, or judge the labels; returns the object for format=json."""
    if options["labels"]:
        return judge_labels(options)
    return assess_maps(options)


def judge_labels(options):
    """Write to the label vector how much models that never saw its labels doubt them."""
    from rlearndeep.accuracy.label_quality import doubt_text, doubts_of, judgement
    from rlearndeep.backends import get_backend
    from rlearndeep.gis.label_areas import areas_of_labels, check_columns, write_columns
    from rlearndeep.gis.session import say, show_progress
    from rlearndeep.gis.vectors import open_features
    from rlearndeep.learning import crossvalidation
    from rlearndeep.scene.numbers import read_number

    how_many = read_number("folds", options["folds"], int)
    vector = open_features(options["labels"], options["layer"], options["column"])
    card, dataset = model_and_patches(options)
    names = [options["doubt"] + ending for ending in ("", "_suggested", "_cells")]
    suggested = "double precision" if card.task == "value" else "varchar(250)"
    columns = dict(zip(names, ("double precision", suggested, "integer"), strict=True))
    check_columns(vector, columns, [options["column"]], gs.overwrite())
    crossvalidation.check_patches(card, dataset)
    areas = crossvalidation.LabelAreas.of(dataset, *areas_of_labels(dataset, vector))
    settings = crossvalidation.model_settings(card, options["device"])
    folds = crossvalidation.make_folds(areas, how_many, card.normalization, settings.seed)
    doubts = doubts_of(card.task, areas.categories, card.classes)

    def progress(done, total, message):
        gs.verbose(message)
        show_progress(done, total)

    backend = get_backend(card.backend)
    for held in crossvalidation.judge(folds, card, settings, backend, progress=progress, warn=gs.warning):
        doubts.add(*held)
    result = {"vector": vector.name, "model": options["model"], "patches": str(dataset.path)}
    result |= judgement(doubts.result(card.classes), vector.values, [fold.near for fold in folds], card.classes)
    for remark in result["remarks"]:
        gs.warning(remark)
    write_columns(
        vector,
        columns,
        {row["area"]: (row["doubt"], label_of(row["suggested"]), row["cells"]) for row in result["areas"]},
    )
    if options["format"] == "plain":
        say(doubt_text(result))
    return result


def label_of(suggested):
    """What is written of a suggestion: the label of a class, a value, or None."""
    return suggested["label"] if isinstance(suggested, dict) else suggested


def model_and_patches(options):
    """The model that judges and the patches of the labels."""
    from rlearndeep.accuracy.footprints import patch_directories
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.model import read_card
    from rlearndeep.patches import PatchDataset

    models = options["model"].split(",")
    if len(models) > 1:
        raise DeepLearningError(
            _("Labels are judged with the settings of one model; got {}. Give one model=.").format(len(models))
        )
    paths = [options["patches"]] if options["patches"] else patch_directories(models[0])
    if len(paths) > 1:
        raise DeepLearningError(
            _(
                "Labels are judged for one patch directory; the model was trained with {}. Choose one with patches=."
            ).format(", ".join(map(str, paths)))
        )
    return read_card(models[0]), PatchDataset.open(paths[0])


def check_options_of_labels(options):
    """Refuse options that need labels=; a default is no wish, as pygrass.Module gives all of them."""
    from rlearndeep.errors import DeepLearningError

    for key, default in (("folds", "5"), ("doubt", "doubt"), ("device", "auto")):
        if options[key] != default:
            raise DeepLearningError(
                _("The option {key}= requires labels=; got {key}={value} without it. Leave {key}= out.").format(
                    key=key, value=options[key]
                )
            )


def assess_maps(options):
    """Compare the maps with the reference."""
    from rlearndeep.accuracy.remarks import remarks
    from rlearndeep.errors import check_installed
    from rlearndeep.gis.session import current_region, say

    check_options_of_labels(options)
    check_installed(_("An assessment"), "sklearn")
    settings = Settings.read(options)
    if settings.report:
        check_installed("report=", "matplotlib")
    region = current_region()
    check_outputs(settings)
    ground = open_ground(settings)
    assess = assess_values if ground.is_floating else assess_classes
    result, scatters = assess(settings, region, ground)
    for remark in remarks(result):
        gs.warning(remark)
    write_files(settings, result, scatters)
    if options["format"] == "plain":
        from rlearndeep.accuracy.text import plain_text

        sys.stdout.reconfigure(errors="replace")
        say(plain_text(result))
    return result


@dataclass(frozen=True)
class Ground:
    """The reference: a raster or a vector."""

    name: str
    kind: str
    is_floating: bool
    vector: object = None
    areas: object = None


def open_ground(settings):
    """The reference, checked against the kind of the maps."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.rasters import raster_info
    from rlearndeep.gis.references import open_reference_vector, rasterize_reference, with_whole_labels

    floating = [name for name in settings.maps if raster_info(name).type != "CELL"]
    if settings.vector:
        vector = open_reference_vector(settings.vector, settings.layer, settings.column, settings.where)
        vector = vector if floating else with_whole_labels(vector)
        areas = rasterize_reference(vector) if vector.kind == "areas" else None
        ground = Ground(settings.vector, vector.kind, vector.labels.dtype.kind == "f", vector, areas)
    else:
        ground = Ground(settings.reference, "raster", raster_info(settings.reference).type != "CELL")
    if floating and not ground.is_floating:
        raise DeepLearningError(
            _(
                "A map of values needs a reference of values; <{map}> is floating point and <{reference}> holds "
                "classes. Convert the map with r.mapcalc (int()), or use a floating point reference."
            ).format(map=floating[0], reference=ground.name)
        )
    if settings.differences and ground.kind == "points":
        raise DeepLearningError(
            _("difference= needs a reference of cells; <{}> holds points. Leave difference= out.").format(ground.name)
        )
    return ground


def check_outputs(settings):
    """Refuse what could not be written, before anything is read."""
    from pathlib import Path

    from rlearndeep.errors import DeepLearningError
    from rlearndeep.files import check_place

    names = len(set(settings.differences))
    if settings.differences and names != len(settings.maps):
        raise DeepLearningError(
            _("difference= needs one name per input map; got {names} for {maps} maps. Give as many names.").format(
                names=names, maps=len(settings.maps)
            )
        )
    check_differences(settings)
    for option in ("matrix", "report"):
        if getattr(settings, option):
            check_place(Path(getattr(settings, option)), option)
    if settings.matrix and os.path.realpath(settings.matrix) == os.path.realpath(settings.report):
        raise DeepLearningError(
            _("matrix= and report= each need a file of their own; got '{}' for both. Choose another name.").format(
                settings.matrix
            )
        )


def check_differences(settings):
    """Refuse names that no difference map can have."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.rasters import find_raster
    from rlearndeep.gis.session import mapset

    for name in settings.differences:
        given = (*settings.maps, settings.reference, settings.strata, settings.segments)
        taken = f"{name}@{mapset()}" in [find_raster(raster) for raster in given if raster] or name == "MASK"
        if taken or not gs.legal_name(name):
            raise DeepLearningError(
                _(
                    "Every new map needs a name of its own that is legal and not an input; got <{}>. "
                    "Choose another name."
                ).format(name)
            )


def common(settings, region, ground, names):
    """What every result begins with, after the remarks on grids."""
    from rlearndeep.gis.references import alignment_remarks, area_unit

    for remark in alignment_remarks(names, region):
        gs.warning(remark)
    return {
        "kind": "values" if ground.is_floating else "classes",
        "reference": ground.name,
        "reference_kind": ground.kind,
        "unit": "points" if ground.kind == "points" else "cells",
        "cells": region.cells,
        "area_unit": area_unit(),
    }


def points_in(region, vector, values):
    """The labelled points inside the region, and how many lie outside."""
    from rlearndeep.accuracy.counting import Points
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.references import reference_points

    east, north, position = reference_points(vector, region)
    rows, cols = region.cell_at(east, north)
    inside = (rows >= 0) & (rows < region.rows) & (cols >= 0) & (cols < region.cols)
    if not inside.any():
        raise DeepLearningError(
            _(
                "Reference points must lie in the region; none of the {count} labelled points of <{name}> does. "
                "Set the region with g.region."
            ).format(count=len(rows), name=vector.name)
        )
    order = rows[inside].argsort(kind="stable")
    chosen = [values[inside][order] for values in (rows, cols, position)]
    return Points(chosen[0], chosen[1], values[chosen[2]]), int((~inside).sum())


def layer_names(settings, region, ground):
    """Names of the rasters to read, what each is, and the mask of cells trained on, None without such."""
    from rlearndeep.accuracy.counting import Layers
    from rlearndeep.accuracy.footprints import Footprints, training_footprints
    from rlearndeep.gis.projections import projection
    from rlearndeep.gis.rasters import around_the_globe
    from rlearndeep.gis.references import open_footprints

    names, numbers = list(settings.maps), {}
    turn = around_the_globe()
    trained = training_footprints(settings.models, region, projection() if settings.models else None, turn)
    raster = ""
    if settings.footprints:
        raster, rectangles = open_footprints(settings.footprints)
        trained += Footprints.of_rectangles(rectangles, region, turn)

    def put(role, name):
        if name:
            numbers[role] = len(names)
            names.append(name)

    put("reference", ground.areas.raster if ground.areas else settings.reference)
    put("strata", settings.strata)
    put("segments", settings.segments)
    put("inside", raster)
    wanted = settings.models or settings.footprints
    return names, Layers(len(settings.maps), **numbers), trained.mask if wanted else None


def class_tables(settings, region, ground, exact):
    """Categories and class table of each map; only categories that occur where ``exact``, or where others confuse."""
    from rlearndeep.accuracy.levels import ambiguous_labels
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.references import categories_of, class_table

    found = [categories_of(name, region, exact) for name in settings.maps]
    tables = [class_table(name, categories) for name, categories in zip(settings.maps, found, strict=True)]
    ambiguous = ambiguous_labels(ground.vector.labels, tables) if ground.vector and not settings.levels else []
    if ambiguous and exact:
        raise DeepLearningError(
            _(
                "A text of a reference must be the label of one category of the maps; {}. Join categories with "
                "r.reclass, or give a table of labels, which compares them (levels=)."
            ).format(ambiguous[0])
        )
    return class_tables(settings, region, ground, exact=True) if ambiguous else (found, tables)


def class_layers(settings, region, ground):
    """Layout of the layers to count, and the class tables to report."""
    import numpy as np
    from rlearndeep.accuracy.counting import codings_of
    from rlearndeep.accuracy.levels import LevelTable, common_levels, label_conflicts, own_level, vector_classes
    from rlearndeep.accuracy.tally import Coding, Layout
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.references import (
        categories_of,
        class_table,
        labelled_classes,
        segment_range,
        strata_categories,
    )

    levels = LevelTable.read(settings.levels) if settings.levels else None
    found, tables = class_tables(settings, region, ground, exact=levels is not None)
    # A class that no cell of a map holds has its category there all the same, and may occur in the reference.
    named = [labelled_classes(name) for name in settings.maps]
    if ground.vector:
        known = (*tables, *named)
        table, codes, unknown = vector_classes(ground.vector.labels, known, levels.numbers if levels else ())
        reference = Coding(np.arange(len(codes)), codes, len(table))
        if ground.areas:
            reference = Coding(ground.areas.values, codes[ground.areas.positions], len(table))
        if unknown and not levels and len(unknown) == len(table):
            raise DeepLearningError(
                _(
                    "Texts of a reference are labels of the map; none of {texts} is a label of <{map}>. Give the map "
                    "labels with r.category, or a column with categories."
                ).format(texts=", ".join(unknown[:5]), map=settings.maps[0])
            )
        if unknown and not levels:
            gs.warning(_("Classes of the reference that no map has: {}").format(", ".join(unknown)))
    else:
        categories = categories_of(ground.name, region, exact=levels is not None)
        table, reference = class_table(ground.name, categories), Coding.of(categories)
    if levels is None or levels.numbers:
        for conflict in label_conflicts((*tables, *named), table):
            gs.warning(conflict)
    layout = Layout(
        codings_of(found),
        reference,
        Coding.of(strata_categories(settings.strata, region)) if settings.strata else None,
        segment_range(settings.segments) if settings.segments else None,
        bool(settings.models or settings.footprints),
    )
    if levels is None:
        return layout, (own_level(tables, table, named),)
    return layout, common_levels(levels, tables, table, settings.level)


def assess_classes(settings, region, ground):
    """Scores of class maps."""
    import numpy as np
    from rlearndeep.accuracy.assessment import Assessment
    from rlearndeep.accuracy.counting import ClassCounting
    from rlearndeep.accuracy.scorer import Scorer
    from rlearndeep.gis.rasters import cell_areas
    from rlearndeep.gis.references import read_strips
    from rlearndeep.gis.session import show_progress

    sampled = ground.kind == "points"
    with ExitStack() as stack:
        scorer = stack.enter_context(Scorer())
        names, layers, trained = layer_names(settings, region, ground)
        layout, levels = class_layers(settings, region, ground)
        given = (*settings.maps, settings.reference, settings.strata, settings.segments)
        result = common(settings, region, ground, list(dict.fromkeys(filter(None, given))))
        counting = ClassCounting(layers, layout, cell_areas(region), trained)
        strips = read_strips(names, region, "int32", settings.memory, show_progress)
        if sampled:
            # Categories of features may lie far apart.
            points, outside = points_in(region, ground.vector, np.arange(len(ground.vector.features)))
            result.update(points=len(points), points_outside=outside)
            counts = counting.points(strips, points)
        else:
            differences = ClassDifferences(settings, ground, region, levels, stack) if settings.differences else None
            counts = counting.cells(strips, differences and differences.write)
        is_sample = sampled or bool(settings.strata)
        result.update(Assessment(tuple(settings.maps), counts, levels, is_sample, scorer.of_table).result())
        if settings.differences:
            differences.publish()
    return result, []


class Differences:
    """The maps of difference=; they appear together, when they are published."""

    def __init__(self, settings, ground, region, dtype, stack):
        from rlearndeep.gis.publishing import NewMaps

        self.settings, self.ground = settings, ground
        self.maps = stack.enter_context(NewMaps(region))
        self.writers = [self.maps.open(name, dtype) for name in settings.differences]

    def description(self, number, note, **own):
        """What belongs to a map beside its cells."""
        from rlearndeep.gis.publishing import Description

        source = self.settings.maps[number]
        title = _("Difference of {map} and {reference}").format(map=source, reference=self.ground.name)
        return Description(title, source=source, note=note, **own)

    def publish(self):
        """Let the maps appear."""
        from rlearndeep.gis.publishing import uninterrupted

        descriptions = {name: self.described(number) for number, name in enumerate(self.settings.differences)}
        with uninterrupted():
            self.maps.publish(descriptions)


class ClassDifferences(Differences):
    """Which class of the reference is mapped as which."""

    def __init__(self, settings, ground, region, levels, stack):
        import numpy as np
        from rlearndeep.accuracy.difference import DifferenceCoding
        from rlearndeep.gis.rasters import CELL_NULL

        self.codings = [DifferenceCoding.at(levels[0], number, CELL_NULL) for number in range(len(settings.maps))]
        self.tables = [coding.table() for coding in self.codings]
        self.seen = [np.zeros(len(table), dtype=bool) for table in self.tables]
        super().__init__(settings, ground, region, "int32", stack)

    def write(self, window, units):
        """Write a strip."""
        for number, (coding, table) in enumerate(zip(self.codings, self.tables, strict=True)):
            pairs = coding.joined(units, number)
            self.seen[number][pairs] = True
            self.writers[number].write(table[pairs].reshape(window.shape))

    def described(self, number):
        """What belongs to a map beside its cells."""
        import numpy as np
        from rlearndeep.gis.publishing import class_legend

        coding = self.codings[number]
        # Of hundreds of classes few pairs occur, and GRASS takes its time for each label.
        categories = np.unique(self.tables[number][self.seen[number]])
        labels, colors = class_legend(coding.class_table(categories[categories != coding.null]))
        note = _("category = class of the reference x {base} + class of the map").format(base=coding.base)
        return self.description(number, note, labels=labels, colors=colors)


class ValueDifferences(Differences):
    """Map minus reference."""

    def __init__(self, settings, ground, region, stack):
        super().__init__(settings, ground, region, "float64", stack)
        self.largest = [0.0] * len(self.writers)

    def write(self, _window, maps, reference):
        """Write a strip."""
        import numpy as np

        for number, values in enumerate(maps):
            difference = values - reference
            self.writers[number].write(difference)
            largest = np.fmax.reduce(np.abs(difference), axis=None, initial=0.0)
            self.largest[number] = max(self.largest[number], float(largest))

    def described(self, number):
        """What belongs to a map beside its cells."""
        from rlearndeep.gis.publishing import differences

        return self.description(number, _("map minus reference"), ramp=differences(self.largest[number]))


def assess_values(settings, region, ground):
    """Scores of value maps."""
    from rlearndeep.accuracy.assessment import value_result
    from rlearndeep.accuracy.counting import LARGEST_VALUE, ValueCounting
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.rasters import raster_info
    from rlearndeep.gis.references import read_strips
    from rlearndeep.gis.session import show_progress

    given = [key for key in ("strata", "levels", "segments", "matrix") if getattr(settings, key)]
    if given:
        raise DeepLearningError(
            _("{option}= needs classes; the reference <{name}> holds floating point values. Leave it out.").format(
                option=given[0], name=ground.name
            )
        )
    gs.message(_("The reference <{}> holds floating point values: maps are compared as values.").format(ground.name))
    names, layers, trained = layer_names(settings, region, ground)
    rasters = names[: layers.maps] + ([settings.reference] if settings.reference else [])
    result = common(settings, region, ground, rasters)
    infos = [raster_info(name) for name in rasters]
    limits = min(info.minimum for info in infos), max(info.maximum for info in infos)
    if ground.vector:
        limits = min(limits[0], ground.vector.labels.min()), max(limits[1], ground.vector.labels.max())
    if not max(map(abs, limits)) < LARGEST_VALUE:
        raise DeepLearningError(
            _(
                "Values to compare must be smaller than {largest:g}; those of maps and reference run from {low:g} to "
                "{high:g}. Make those that stand for no data null with r.mapcalc."
            ).format(largest=LARGEST_VALUE, low=limits[0], high=limits[1])
        )
    areas = (ground.areas.values, ground.vector.labels[ground.areas.positions]) if ground.areas else None
    counting = ValueCounting(layers, limits, trained, areas)
    strips = read_strips(names, region, "float64", settings.memory, show_progress)
    zones = bool(settings.models or settings.footprints)
    with ExitStack() as stack:
        if ground.kind == "points":
            points, outside = points_in(region, ground.vector, ground.vector.labels)
            result.update(points=len(points), points_outside=outside)
            counts = counting.points(strips, points)
        else:
            differences = ValueDifferences(settings, ground, region, stack) if settings.differences else None
            counts = counting.cells(strips, differences and differences.write)
        result.update(value_result(settings.maps, counts, zones))
        if settings.differences:
            differences.publish()
    return result, [(counting.limits, entry.scatter) for entry in counts]


def write_files(settings, result, scatters):
    """The confusion matrices and the report, where asked for."""
    from pathlib import Path

    from rlearndeep.accuracy.text import matrix_table
    from rlearndeep.files import write_text

    if settings.matrix:
        write_text(Path(settings.matrix), matrix_table(result))
    if settings.report:
        from rlearndeep.accuracy.report import html_report
        from rlearndeep.gis.session import command_line

        write_text(Path(settings.report), html_report(result, scatters, command_line()))


def main():
    read_utf8()
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags)


if __name__ == "__main__":
    main()
