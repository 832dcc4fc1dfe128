#!/usr/bin/env python3

############################################################################
#
# MODULE:       r.learn.deep.predict
#
# AUTHOR(S):    r.learn.deep developers
#
# PURPOSE:      Predicts maps of an imagery group with trained networks
#
# COPYRIGHT:    (C) 2026 by the r.learn.deep developers
#
#               This program is free software under the GNU General Public
#               License (>=v2). Read the file LICENSE that comes with the
#               suite for details.
#
#############################################################################

# %module
# % description: Predicts classes or values of an imagery group with a trained network, cell by cell or segment by segment.
# % keyword: raster
# % keyword: imagery
# % keyword: classification
# % keyword: regression
# % keyword: deep learning
# % keyword: machine learning
# % keyword: OBIA
# %end

# %option G_OPT_I_GROUP
# % key: group
# % description: Imagery group with the bands the model was trained with
# %end

# %option G_OPT_I_GROUP
# % key: auxiliary
# % required: no
# % multiple: yes
# % label: Imagery groups for the auxiliary sources of the model
# % description: In the order of training, or known by their bands; in cells of their own
# % guisection: Sources
# %end

# %option G_OPT_I_GROUP
# % key: series
# % required: no
# % multiple: yes
# % label: Time series for a model of one: imagery groups with the same bands in the order of their dates
# % description: Any number of dates
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

# %option G_OPT_M_DIR
# % key: model
# % required: yes
# % multiple: yes
# % label: Model directory of r.learn.deep.train
# % description: The scores of several models are averaged
# %end

# %option G_OPT_R_OUTPUT
# % required: no
# % label: Name for the map of classes or values
# % description: Basename where a model says of each class whether it is there: <output>_<category>
# % guisection: Required
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

# %option G_OPT_R_OUTPUT
# % key: spread
# % required: no
# % label: Name for a map of how far the answers differ
# % description: Needs several models, or augment=
# % guisection: Certainty
# %end

# %option G_OPT_R_OUTPUT
# % key: novelty
# % required: no
# % label: Name for a map of the distance to the training data
# % description: As the network sees them; above 1 lies what training and validation data did not cover
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
# % description: Name for a map with one class or value per segment
# % guisection: Segments
# %end

# %option G_OPT_F_OUTPUT
# % key: segments_table
# % required: no
# % description: Name for a table (CSV) of classes and probabilities, or of values, per segment
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
# % key: augment
# % type: string
# % options: none,flips,d4
# % answer: none
# % label: Views of the imagery whose answers are averaged
# % description: More views make better maps and take as much longer
# % descriptions: none;as it is;flips;mirrored both ways, four views;d4;mirrored and turned by right angles, eight views
# % guisection: Certainty
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

# %option
# % key: scheduler
# % type: string
# % key_desc: address
# % label: Address of a Dask scheduler whose workers compute
# % description: E.g. tcp://host:8786; workers run inside GRASS and see the same project
# % guisection: Computing
# %end

# %option G_OPT_MEMORYMB
# % answer: 1000
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

# %flag
# % key: r
# % description: Continue an interrupted prediction of the same output
# %end

# %rules
# % required: output, probabilities, confidence, margin, entropy, spread, novelty, segments_output, segments_table
# % requires: dates, series
# % requires: segments_output, segments
# % requires: segments_table, segments
# % requires: aggregate, segments
# % requires: segments, segments_output, segments_table
# %end

from __future__ import annotations

import locale
import os
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grass.script as gs

# Cells this much larger or smaller than those of the training show the network other things.
_RESOLUTION_RATIO = 1.25

_MAPS = ("output", "probabilities", "confidence", "margin", "entropy", "spread", "novelty", "segments_output")
_PER_SEGMENT = ("segments_output", "segments_table")

# What is kept of a prediction adds a little to its name, and file systems take 255 bytes.
_LONGEST_NAME = 240


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
    """The options, converted."""

    group: str
    auxiliary: tuple[str, ...]
    series: tuple[str, ...]
    dates: tuple[str, ...]
    models: tuple[Path, ...]
    maps: dict[str, str]
    segments: str
    segments_table: Path | None
    aggregate: str
    overlap: int | None
    blend: str
    stride: int | None
    augment: str
    batch_size: int | None
    precision: str
    device: str
    scheduler: str
    memory: int
    nprocs: int
    resume: bool

    @property
    def streams(self) -> bool:
        """Whether any map of cells is wanted."""
        return any(name for option, name in self.maps.items() if option not in _PER_SEGMENT)

    @property
    def threads(self) -> int:
        """How many maps are read, or written, side by side."""
        return self.nprocs or os.cpu_count() or 1


def several(text: str) -> tuple[str, ...]:
    """The values of an option that takes several."""
    return tuple(value.strip() for value in text.split(",")) if text else ()


def read_options(options: dict, flags: dict) -> Settings:
    """Settings of the parser's options."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.session import mapset
    from rlearndeep.scene.numbers import read_number

    batch_size = options["batch_size"]
    if batch_size != "auto" and not (batch_size.isdecimal() and int(batch_size) > 0):
        raise DeepLearningError(
            _("The batch size must be auto or a positive number; got '{}'. Correct batch_size=.").format(batch_size)
        )
    numbers = {}
    for key, lowest in (("overlap", 0), ("stride", 1), ("memory", 1), ("nprocs", 0)):
        numbers[key] = read_number(key, options[key], int) if options[key] else None
        if options[key] and numbers[key] < lowest:
            raise DeepLearningError(
                _("The number must be at least {}; got {}. Correct {}=.").format(lowest, options[key], key)
            )
    return Settings(
        group=options["group"],
        **{key: several(options[key]) for key in ("auxiliary", "series", "dates")},
        models=tuple(Path(name).absolute() for name in options["model"].split(",")),
        maps={key: options[key].removesuffix(f"@{mapset()}") for key in _MAPS},
        segments=options["segments"],
        segments_table=Path(options["segments_table"]) if options["segments_table"] else None,
        aggregate=options["aggregate"],
        blend=options["blend"],
        augment=options["augment"],
        batch_size=None if batch_size == "auto" else int(batch_size),
        precision=options["precision"],
        device=options["device"],
        scheduler=options["scheduler"],
        **numbers,
        resume=flags["r"],
    )


@dataclass(frozen=True)
class Work:
    """Everything that is settled before anything is computed; see the library for the types."""

    settings: Settings
    cards: list
    group: object
    names: list  # of the rasters of the group that are read
    arrangement: object  # how the groups serve the models
    further: dict  # groups beside the reference, by what the models call them
    extent: object  # cells of the region's grid where they have data
    segments: str
    region: object
    plan: object
    question: object
    columns: int  # of tiles, held at once

    @property
    def inputs(self) -> list:
        """Full names of all rasters that are read."""
        more = [raster for source in self.further.values() for group in source.groups for raster in group.names]
        return [*self.names, *more, *([self.segments] if self.segments else [])]

    @property
    def branches(self) -> dict:
        """The groups that networks look at in their own cells, with the size of a window."""
        of_all = [branch.source for own in self.arrangement.branches for branch in own]
        return {source.name: source.shape for source in of_all if source.name in self.further}

    @property
    def crops(self) -> bool:
        """Whether segments are answered from a crop each."""
        return bool(self.segments) and self.cards[0].unit == "patch"


def settle(settings: Settings, region) -> Work:
    """Read the cards of the models, match bands and sources, and decide how the region is cut."""
    from dataclasses import replace

    from rlearndeep.gis.groups import open_group
    from rlearndeep.gis.rasters import extent_window, raster_info
    from rlearndeep.model import read_card
    from rlearndeep.prediction.answers import Question, Subject, check_members, check_views
    from rlearndeep.prediction.matching import arrange
    from rlearndeep.prediction.planning import make_plan
    from rlearndeep.prediction.views import VIEWS

    cards = [read_card(path) for path in settings.models]
    check_members(cards, [str(path) for path in settings.models])
    check_views(cards, settings.augment)
    group, given = open_group(settings.group), open_given(settings)
    arrangement = arrange(cards, group.bands, [offer for offer, _ in given])
    further = {name: given[number][1].of_bands(arrangement.bands[name]) for name, number in arrangement.offers.items()}
    rasters = [group.rasters[position] for position in arrangement.reference]
    segments = check_segments(raster_info(settings.segments)) if settings.segments else ""
    wants = {key: bool(settings.maps[key]) for key in ("spread", "novelty")}
    question = Question(Subject.of(cards[0]), VIEWS[settings.augment], **wants)
    plan = make_plan(cards, settings.overlap, settings.blend, settings.stride)
    reach = max(max(card.patch) if card.reach is None else card.reach for card in cards)
    if cards[0].unit == "patch":
        reach += max(plan.stride)
    names, extent = [one.name for one in rasters], extent_window(region, [one.region for one in rasters], reach)
    work = Work(settings, cards, group, names, arrangement, further, extent, segments, region, plan, question, 0)
    return replace(work, columns=columns_of(work))


def columns_of(work: Work) -> int:
    """How many columns of tiles may be held at once."""
    from rlearndeep.prediction.planning import Beside, starts_per_chunk

    question = work.question
    bands = len(work.names) + work.arrangement.stacked_bands
    kept = sum(p.layer.bytes_kept(question.subject) for p in planned(work) if not p.of_segments)
    beside = []
    for name, shape in work.branches.items():
        source = work.further[name]
        beside.append(Beside(len(source.source.bands) * len(source.groups), source.region, shape))
    return starts_per_chunk(work.plan, work.region, bands, question.planes, kept, work.settings.memory, beside)


def planned(work: Work) -> list:
    """The maps to make, by the names that were given."""
    from rlearndeep.prediction.products import plan_products

    return plan_products(work.settings.maps, work.question.subject, len(work.cards) * len(work.question.views))


def open_given(settings: Settings) -> list:
    """The groups given beside the reference: what they offer, and how they are read."""
    from rlearndeep.gis.sources import open_auxiliary, open_series
    from rlearndeep.prediction.matching import Offer

    given = [
        (Offer(name, source.source.bands), source)
        for name, source in zip(settings.auxiliary, open_auxiliary(settings.auxiliary, settings.threads), strict=True)
    ]
    if settings.series:
        series = open_series(settings.series, settings.dates, settings.threads)
        given.append((Offer(", ".join(settings.series), series.source.bands, series.source.dates), series))
    return given


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


def job(options: dict, flags: dict) -> dict | None:
    """Predict; returns the object that format=json prints."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.files import check_place
    from rlearndeep.gis.rasters import write_fast
    from rlearndeep.gis.session import current_region, say

    write_fast()
    settings = read_options(options, flags)
    work = settle(settings, current_region())
    if work.crops and settings.aggregate:
        raise DeepLearningError(
            _(
                "Cells are aggregated for models that answer per cell; this model answers each segment once, from a crop "
                "of it, and got aggregate={}. Leave aggregate= out."
            ).format(settings.aggregate)
        )
    if work.crops:
        trained_on_boxes(work)  # models that are no company for each other are refused before anything is read
    if work.question.subject.task == "value" and settings.aggregate == "majority":
        raise DeepLearningError(
            _("A majority is of classes; this model says a number and got aggregate=majority. Leave aggregate= out.")
        )
    if settings.segments_table is not None:
        check_place(settings.segments_table, "segments_table")
    products = planned(work)
    check_names(products, work)
    warn_of_grid(work)
    report = predict(options, work, products)
    if options["format"] == "plain":
        say(report_text(report))
    return report


def check_names(products: list, work: Work) -> None:
    """See that the names of new maps are legal, distinct and free."""
    from rlearndeep.errors import DeepLearningError
    from rlearndeep.gis.rasters import check_new_raster
    from rlearndeep.gis.session import mapset

    here = mapset()
    names = [product.name for product in products]
    for name in names:
        taken = names.count(name) > 1 or f"{name}@{here}" in work.inputs or name == "MASK"
        if taken or len(name.encode()) > _LONGEST_NAME or not gs.legal_name(name):
            raise DeepLearningError(
                _(
                    "Every new map needs a name of its own that is legal, not an input and has at most {} characters; "
                    "got <{}>. Choose another name."
                ).format(_LONGEST_NAME, name)
            )
        check_new_raster(name, gs.overwrite())


def warn_of_grid(work: Work) -> None:
    """Warn where the networks see other cells than those they were trained on, lack a source, or name classes otherwise."""
    from rlearndeep.gis.groups import grid_remarks
    from rlearndeep.gis.rasters import raster_info
    from rlearndeep.prediction.answers import label_remarks, tile_remarks

    region, names = work.region, [str(path) for path in work.settings.models]
    warn_of_first(label_remarks(work.cards, names))
    if work.cards[0].unit == "cell":
        warn_of_first(tile_remarks(work.cards, names, work.plan.input_size))
    for card in work.cards:
        units = units_of(card, region)
        warn_of_size(_("The region"), region, card.resolution, units)
        for source in card.sources:
            if source.name in work.further:
                name = ", ".join(group.name for group in work.further[source.name].groups[:2])
                what, own = _("Source {} <{}>").format(source.name, name), work.further[source.name].region
                warn_of_size(what, own, source.resolution, units)
    for name in work.arrangement.absent:
        gs.warning(
            _("The model was trained with the source {}, which was not given; its answers may be poorer.").format(name)
        )
    warn_of_first(grid_remarks(work.group.rasters, region))
    warn_of_first(grid_remarks([raster_info(name) for name in [work.segments] if name], region))
    for source in work.further.values():
        warn_of_first(source.remarks())


def units_of(card, region) -> tuple:
    """Height and width of a map unit of the training's project in those of this one; 1 where that is not known."""
    from rlearndeep.gis.projections import ground_units
    from rlearndeep.scene.units import of_system

    here, there = ground_units(region), of_system(str(card.projection.get("wkt") or ""), card.extent)
    if here is None or there is None:
        return 1.0, 1.0
    return there[0] / here[0], there[1] / here[1]


def warn_of_size(what: str, here, there: tuple, units: tuple) -> None:
    """Warn of cells that are much larger or smaller than those of the training, which had other map units."""
    there = there[0] * units[0], there[1] * units[1]
    ratios = here.nsres / there[0], here.ewres / there[1]
    if max(max(ratio, 1 / ratio) for ratio in ratios) > _RESOLUTION_RATIO:
        gs.warning(
            _(
                "{} has cells of {:g} x {:g} map units, the model was trained on {:g} x {:g}; its answers may be poor."
            ).format(what, here.nsres, here.ewres, *there)
        )


def warn_of_first(remarks: list) -> None:
    """Warn of the first of several remarks, and say how many there are."""
    if remarks:
        more = _(" (and {} more)").format(len(remarks) - 1) if len(remarks) > 1 else ""
        gs.warning(remarks[0] + more)


def open_source(work: Work, stack: ExitStack) -> tuple:
    """The cells of the group, with those of resampled sources behind them, and the segmentation or None."""
    from rlearndeep.gis.rasters import RasterStack
    from rlearndeep.prediction.reading import Layer, Stacked

    window = work.plan.reading_window(work.region, work.extent)
    if work.crops:  # they lie around segments, whatever blocks need
        (rows, cols), (height, width) = work.plan.input_size, work.plan.stride
        window = work.region.window.expanded(rows + height, cols + width)
    beside = [work.segments] if work.segments else []
    source = stack.enter_context(
        RasterStack(work.names, work.region, window, beside=beside, readers=work.settings.threads)
    )
    if work.arrangement.layers:
        further = [(work.further[name], method) for name, method in work.arrangement.layers]
        source = Stacked(source, work.region, [Layer(one, one.region, method) for one, method in further])
    if not work.segments:
        return source, None
    raster = RasterStack([work.segments], work.region, window, dtype="int32", beside=work.names)
    return source, stack.enter_context(raster)


def load_job(work: Work, source, precision: str):
    """The networks with the rasters: what the library calls a job."""
    settings = work.settings
    if settings.nprocs:
        # The numerical libraries read this once, when they are loaded.
        os.environ["OMP_NUM_THREADS"] = str(settings.nprocs)
    from rlearndeep.backends import get_backend
    from rlearndeep.model import read_feature_space
    from rlearndeep.prediction.answers import Member
    from rlearndeep.prediction.branches import FurtherSource
    from rlearndeep.prediction.stream import Job

    members = []
    known = zip(settings.models, work.cards, work.arrangement.positions, work.arrangement.branches, strict=True)
    for path, card, own, branches in known:
        predictor = get_backend(card.backend).load(path, card, device=settings.device, precision=precision)
        space = read_feature_space(path) if work.question.novelty else None
        members.append(Member(predictor, card, own, space, branches))
    gs.verbose(_("Device {}, precision {}.").format(members[0].predictor.device, members[0].predictor.precision))
    further = {
        name: FurtherSource(work.further[name], work.further[name].region, work.further[name].source.dates)
        for name in work.branches
    }
    return Job(
        source, work.region, work.extent, members, work.plan, work.question, work.columns, settings.batch_size, further
    )


def about(job) -> dict:
    """What is reported of the networks at work."""
    rows, cols = job.plan.input_size
    member = job.members[0]
    precision = member.predictor.precision
    changes = (
        [float(one.card.training.get("bf16_changes", 0.0)) for one in job.members] if precision == "bf16" else [0.0]
    )
    return {
        "device": member.predictor.device,
        "precision": precision,
        "precision_changes": max(changes),
        "batch_size": member.batch_size(rows * cols, job.batch_size),
    }


def remote(library: str, request: dict, piece: tuple | None) -> object:
    """On a worker: the chunk of a piece, or what is to be reported of the networks."""
    if library not in sys.path:
        sys.path.insert(0, library)
    from rlearndeep.gis.session import join_session
    from rlearndeep.prediction.cluster import kept
    from rlearndeep.prediction.stream import Here
    from rlearndeep.scene.geometry import Region

    def opened() -> tuple:
        join_session(request["session"])
        work = settle(read_options(request["options"], request["flags"]), Region.from_json(request["region"]))
        with ExitStack() as stack:
            source, _segments = open_source(work, stack)
            job = load_job(work, source, request["precision"])
            return stack.pop_all(), job, Here(job)

    with kept(repr(request), opened, lambda old: old[0].close()) as (_stack, job, here):
        return about(job) if piece is None else here.chunk(piece)


def request_of(options: dict, work: Work) -> dict:
    """What a worker has to know; it keeps what it opens for one run, as maps and models may change between two."""
    from uuid import uuid4

    from rlearndeep.gis.session import session_of

    own = {
        "model": ",".join(map(str, work.settings.models)), "segments": "", "scheduler": "", "segments_output": "",
        "segments_table": "",
    }  # fmt: skip
    return {
        "options": {**options, **own},
        "flags": {"r": False},
        "region": work.region.to_json(),
        "precision": work.settings.precision,
        "session": session_of(),
        "run": uuid4().hex,
    }


def predict(options: dict, work: Work, products: list) -> dict:
    """Stream the region through the networks and write all maps; they appear at the end, together."""
    from rlearndeep.gis.publishing import NewMaps, uninterrupted
    from rlearndeep.gis.session import say_when_interrupted

    with ExitStack() as ending, ExitStack() as stack:
        source, raster = open_source(work, stack)
        job, rows, networks = open_networks(options, work, source, stack)
        started = time.perf_counter()
        journal = stack.enter_context(open_journal(work, products, networks["precision"]))
        maps = stack.enter_context(NewMaps(work.region))
        tally, segments = write_cells(work, products, job, rows, raster, maps, journal)
        if segments is not None:
            counted = write_segments(work, products, segments, raster, maps, stack)
            tally = tally if work.settings.maps["output"] else counted
        ending.enter_context(uninterrupted())  # until the table stands too, and the kept rows are gone
        maps.publish(describe(work, products, tally))
        say_when_interrupted(_("all outputs were written."))
    if tally.null_cells == tally.cells:
        what = _("segment") if segments is not None and not work.settings.maps["output"] else _("cell of the region")
        gs.warning(_("No {} has data in all bands; the map is null everywhere.").format(what))
    return report_of(work, tally, time.perf_counter() - started, networks)


def open_networks(options: dict, work: Work, source, stack: ExitStack) -> tuple:
    """The job, where its rows are computed (None: here), and what is to be reported of the networks."""
    from rlearndeep.prediction.cluster import cluster, in_order
    from rlearndeep.prediction.stream import Job

    settings = work.settings
    if not settings.scheduler:
        job = load_job(work, source, settings.precision)
        return job, None, about(job)
    library = os.path.dirname(os.path.dirname(sys.modules["rlearndeep"].__file__))
    client = stack.enter_context(cluster(settings.scheduler))
    request = request_of(options, work)
    networks = next(in_order(client, partial(remote, library, request), [None]))
    request["precision"] = networks["precision"]
    rows = partial(in_order, client, partial(remote, library, request))
    if work.crops:
        return load_job(work, source, networks["precision"]), rows, networks
    job = Job(source, work.region, work.extent, [], work.plan, work.question, work.columns, settings.batch_size)
    return job, rows, networks


def open_journal(work: Work, products: list, precision: str):
    """The finished rows of this prediction on disk; gone when the ``with`` block ends well."""
    import rlearndeep
    from rlearndeep.gis.session import mapset_directory
    from rlearndeep.gis.staging import KEEPER
    from rlearndeep.gis.stamps import mask_stamp, raster_stamp
    from rlearndeep.model import MANIFEST, NOVELTY
    from rlearndeep.prediction.journal import RowJournal, digest

    settings = work.settings
    novelty = (NOVELTY,) if work.question.novelty else ()
    known = zip(settings.models, work.cards, strict=True)
    files = [path / name for path, card in known for name in (MANIFEST, card.weights, *novelty)]
    name = products[0].name if products else settings.segments_table.name
    what = {
        "model": [digest(file) for file in files],
        "region": work.region.to_json(),
        "bands": [raster_stamp(raster) for raster in work.inputs if raster != work.segments],
        "dates": [list(source.source.dates) for source in work.further.values()],
        "mask": mask_stamp(),
        "segments": raster_stamp(work.segments) if work.segments else None,
        "maps": [[product.name, product.layer.kind, product.layer.class_index] for product in products],
        "overlap=": settings.overlap,
        "blend=": settings.blend,
        "stride=": settings.stride,
        "augment=": settings.augment,
        "aggregate=": settings.aggregate or "mean",
        "precision=": precision,
        "version of the program": rlearndeep.__version__,
    }
    return RowJournal(mapset_directory() / KEEPER / f"predict_{name}", what, settings.resume)


def write_cells(work: Work, products: list, job, rows, raster, maps, journal) -> tuple:
    """Write the maps of cells; the counts, or None without such maps, and what segments are, or None."""
    from rlearndeep.gis.rasters import cell_areas
    from rlearndeep.prediction.crops import answer_segments
    from rlearndeep.prediction.maps import Sheets
    from rlearndeep.prediction.segments import SegmentSums
    from rlearndeep.prediction.stream import strips

    settings, at = work.settings, partial(ids_at, raster)
    index = index_segments(raster) if raster else None
    if work.crops and not settings.streams:
        return None, (index, answer_segments(job, index, at, trained_on_boxes(work), show_rows))
    own = [product for product in products if not product.of_segments]
    layers = [(product.layer, maps.open(product.name, product.layer.dtype)) for product in own]
    sums = (
        SegmentSums(index, work.question.subject, settings.aggregate or "mean") if raster and not work.crops else None
    )
    kept = (sums, at) if sums else None
    areas, cols = cell_areas(work.region), work.region.cols
    behind = 0 if work.further else 1
    sheets = Sheets(work.question, layers, areas, cols, kept, show_rows, settings.threads, behind)
    tally = sheets.write(strips(job, journal.done, rows), journal)
    if work.crops:
        return tally, (index, answer_segments(job, index, at, trained_on_boxes(work)))
    return tally, (index, sums.result()) if sums else None


def trained_on_boxes(work: Work) -> bool:
    """Whether the models were trained on padded boxes of areas."""
    from rlearndeep.prediction.crops import are_boxed

    return are_boxed(work.cards, [str(path) for path in work.settings.models])


def show_rows(done: int, total: int) -> None:
    """Progress in rows."""
    from rlearndeep.gis.session import show_progress

    show_progress(done, total, 2)


def ids_at(raster, window) -> tuple:
    """Segment ids of a window, and where there is a segment."""
    ids = raster.read(window)[0]
    return ids, ids != raster.null


def index_segments(raster):
    """The ids that occur in the region."""
    from rlearndeep.prediction.segments import SegmentIndex
    from rlearndeep.scene.geometry import Window

    region, rows = raster.region, 256
    windows = (Window(row, min(row + rows, region.rows), 0, region.cols) for row in range(0, region.rows, rows))
    index = SegmentIndex.of(ids[segment] for ids, segment in (ids_at(raster, window) for window in windows))
    if not len(index):
        gs.warning(_("The segmentation raster <{}> is null everywhere in the region.").format(raster.names[0]))
    return index


def write_segments(work: Work, products: list, segments: tuple, raster, maps, stack: ExitStack):
    """Write the maps and the table of segments, which appear with the other maps; the counts."""
    from rlearndeep.gis.rasters import cell_areas
    from rlearndeep.prediction.answers import Question
    from rlearndeep.prediction.maps import Sheets
    from rlearndeep.prediction.segments import segment_strips, segment_table, table_file

    index, result = segments
    if work.settings.segments_table is not None:
        stack.enter_context(table_file(work.settings.segments_table, segment_table(result)))
    own = [product for product in products if product.of_segments]
    layers = [(product.layer, maps.open(product.name, product.layer.dtype)) for product in own]
    sheets = Sheets(Question(work.question.subject), layers, cell_areas(work.region), work.region.cols)
    return sheets.write(segment_strips(result, index, partial(ids_at, raster), work.region))


def describe(work: Work, products: list, tally) -> dict:
    """What belongs to each map beside its cells, by name."""
    return {product.name: description(work, product, tally) for product in products}


def description(work: Work, product, tally):
    """Title, units, labels and colours of a map."""
    from rlearndeep.gis.publishing import NOVELTY_COLORS, Description, class_legend, viridis

    settings, subject, kind = work.settings, work.question.subject, product.layer.kind
    model = ", ".join(path.name for path in settings.models)
    quantity = work.cards[0].quantity
    units = quantity.units if quantity else "" if kind in ("entropy", "spread") else _("probability")
    label = subject.classes.labels[product.layer.class_index] if len(subject.classes) else quantity.name
    what = _("Segments <{}>: ").format(settings.segments) if product.of_segments else ""
    groups = ", ".join(
        (settings.group, *settings.auxiliary, *settings.series[:2], *(["..."] if settings.series[2:] else []))
    )
    common = {"source": _("imagery group {}").format(groups), "note": _("Model {}").format(model)}
    if kind == "class":
        labels, colors = class_legend(subject.classes)
        return Description(what + _("Classes predicted with {}").format(model), labels=labels, colors=colors, **common)
    if kind == "presence":
        labels = {0: _("no {}").format(label), 1: label}
        colors = {0: (240, 240, 240), 1: subject.classes.colors[product.layer.class_index]}
        title = what + _("Presence of {} predicted with {}").format(label, model)
        return Description(title, labels=labels, colors=colors, **common)
    if kind == "value":
        low, high = (tally.statistics.minimum, tally.statistics.maximum) if tally.statistics.count else (0, 1)
        title = what + _("{} predicted with {}").format(label, model)
        return Description(title, units, ramp=viridis(low, high), **common)
    if kind == "novelty":
        title = _("Distance to the training data, 1 = edge of what they cover")
        return Description(title, _("edge of the known"), ramp=NOVELTY_COLORS, **common)
    titles = {
        "confidence": _("Probability of the predicted class"),
        "margin": _("Best minus second best class probability"),
        "entropy": _("Entropy of the class probabilities, 0..1"),
        "spread": _("Spread of the answers"),
    }
    title = titles.get(kind) or _("Probability of class {}").format(label)
    top = subject.scale if quantity else 1.0
    return Description(title, units, ramp=viridis(0, top), **common)


def report_of(work: Work, tally, seconds: float, networks: dict) -> dict:
    """The object that format=json prints."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    classes, quantity, values = work.question.subject.classes, work.cards[0].quantity, tally.statistics
    counted = zip(classes, classes.labels, tally.per_class.tolist(), tally.area.tolist(), strict=True)
    report = {
        "cells": tally.cells,
        "null_cells": tally.null_cells,
        "classes": [
            {"category": entry.category, "label": label, "cells": cells, "area": area}
            for entry, label, cells, area in counted
        ],
        "seconds": round(seconds, 3),
        "cells_per_second": round(tally.cells / max(seconds, 1e-9)),
        "device": networks["device"],
        "precision": networks["precision"],
        "precision_changes": networks["precision_changes"],
        "batch_size": networks["batch_size"],
        "peak_memory_mb": round(peak / (1024**2 if sys.platform == "darwin" else 1024)),
    }
    if quantity is not None:
        known = values.count > 0
        report["values"] = {
            "name": quantity.name,
            "units": quantity.units,
            "minimum": values.minimum if known else None,
            "maximum": values.maximum if known else None,
            "mean": values.mean if known else None,
            "stddev": values.std if known else None,
        }
    return report


def report_text(report: dict) -> str:
    """The report as lines."""
    line = _("Device: {}, precision {}, batches of {}").format(
        report["device"], report["precision"], report["batch_size"]
    )
    if report["precision"] != "32":
        line += _(" ({:.2%} of the answers of validation differ from those in 32 bit)").format(
            report["precision_changes"]
        )
    lines = [
        line,
        _("Cells: {}, null: {}").format(report["cells"], report["null_cells"]),
        _("Time: {:.1f} s, {:,} cells per second").format(report["seconds"], report["cells_per_second"]),
    ]
    if "values" in report:
        values = report["values"]
        keys = ("minimum", "maximum", "mean", "stddev")
        numbers = ["" if values[key] is None else f"{values[key]:.7g}" for key in keys]
        return "\n".join(
            [*lines, "|".join(["name", "units", *keys]), "|".join([values["name"], values["units"], *numbers])]
        )
    lines.append("category|label|cells|area")
    lines += [
        f"{entry['category']}|{entry['label']}|{entry['cells']}|{entry['area']:.10g}" for entry in report["classes"]
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse the options and run the job as GRASS users expect."""
    read_utf8()
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags, _("no map was written. Continue with -r, or start again without it."))


if __name__ == "__main__":
    main()
