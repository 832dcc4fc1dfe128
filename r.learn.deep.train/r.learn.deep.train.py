#!/usr/bin/env python3

############################################################################
#
# MODULE:       r.learn.deep.train
# AUTHOR(S):    r.learn.deep developers
# PURPOSE:      Trains a neural network on image patches
# COPYRIGHT:    (C) 2026 by the r.learn.deep developers
#
#               This program is free software under the GNU General Public
#               License (>=v2). Read the file LICENSE that comes with the
#               suite for details.
#
############################################################################

# %module
# % description: Trains a neural network on image patches of v.sample.patches and writes a model directory.
# % keyword: raster
# % keyword: classification
# % keyword: deep learning
# % keyword: neural network
# % keyword: machine learning
# %end

# %option G_OPT_M_DIR
# % key: patches
# % required: no
# % multiple: yes
# % label: Patch directory of v.sample.patches
# % description: Several directories (sites) need the same bands, classes and patch size
# % guisection: Required
# %end

# %option G_OPT_M_DIR
# % key: model
# % required: yes
# % description: Model directory to write
# %end

# %option
# % key: backend
# % type: string
# % required: no
# % options: torch,keras
# % answer: torch
# % description: Deep learning library
# % descriptions: torch;PyTorch;keras;Keras 3, on TensorFlow or what KERAS_BACKEND names
# % guisection: Network
# %end

# %option
# % key: architecture
# % type: string
# % required: no
# % key_desc: name
# % label: Network, e.g. unet, fpn, deeplabv3plus, segformer, fcn_dilated; resnet18, swin_t, cnn; mlp; fusion
# % description: Default: mlp for single cells, unet for a label per cell; for a label per patch resnet18, or cnn where patches have at most 12 x 12 cells and weights=none
# % guisection: Network
# %end

# %option
# % key: sources
# % type: string
# % required: no
# % multiple: yes
# % key_desc: name
# % label: Sources of the patches that the network looks at: reference, auxiliary1, ..., series
# % description: Default: all for fusion, all but a series for other networks
# % guisection: Network
# %end

# %option
# % key: resampling
# % type: string
# % required: no
# % options: nearest,bilinear
# % label: How auxiliary sources are brought into the cells of the reference, unless fusion takes them as they are
# % description: Default: nearest
# % descriptions: nearest;The cell that holds the centre;bilinear;The mean of the four nearest cells, by distance
# % guisection: Network
# %end

# %option
# % key: encoder
# % type: string
# % required: no
# % key_desc: name
# % description: Encoder of unet, its relatives and fusion (default: resnet18; of dpt vit_small_patch16_224)
# % guisection: Network
# %end

# %option
# % key: weights
# % type: string
# % required: no
# % answer: none
# % key_desc: none|imagenet|name
# % label: Weights to begin with: none, imagenet, a weights file, or a model directory
# % description: The first layer is turned to the bands of the patches, the last one to their classes
# % guisection: Network
# %end

# %option
# % key: freeze
# % type: string
# % required: no
# % answer: none
# % key_desc: none|encoder|epochs
# % label: What of the weights does not learn: none, encoder, or the encoder for a number of epochs
# % guisection: Network
# %end

# %option
# % key: encoder_rate
# % type: double
# % required: no
# % options: 0.000001-1
# % label: Factor of the learning rate for an encoder that begins with weights
# % description: Default: 0.1, and 1 for a model whose whole network goes on
# % guisection: Network
# %end

# %option
# % key: hidden
# % type: integer
# % required: no
# % multiple: yes
# % options: 1-65536
# % description: Widths of the hidden layers of mlp (default: 128,64)
# % guisection: Network
# %end

# %option
# % key: dropout
# % type: double
# % required: no
# % options: 0-0.99
# % label: Share of units left out in training: mlp, cnn (default: 0.2), networks of timm (default: 0)
# % description: Of fusion the share of patches from which a further source is left out (default: 0.15)
# % guisection: Network
# %end

# %option
# % key: filters
# % type: integer
# % required: no
# % options: 1-65536
# % description: Filters of fcn_dilated (default: 64), of the first block of cnn or of the branches of fusion (default: 32)
# % guisection: Network
# %end

# %option
# % key: kernel
# % type: integer
# % required: no
# % multiple: yes
# % options: 1-99
# % description: Rows and columns of the convolutions of fcn_dilated, per block; the last one repeats (default: 5,3)
# % guisection: Network
# %end

# %option
# % key: blocks
# % type: integer
# % required: no
# % options: 1-100
# % description: Number of blocks of fcn_dilated (default: 7), of cnn or of the branches of fusion (default: 3)
# % guisection: Network
# %end

# %option
# % key: dilations
# % type: integer
# % required: no
# % multiple: yes
# % options: 1-65536
# % description: Dilations of fcn_dilated, per block; the last one repeats (default: 2)
# % guisection: Network
# %end

# %option
# % key: standardize
# % type: string
# % required: no
# % options: band,cell,none
# % answer: band
# % description: How values become network input
# % descriptions: band;by mean and deviation of each band;cell;by those over the bands of each cell;none;not at all
# % guisection: Learning
# %end

# %option
# % key: loss
# % type: string
# % required: no
# % key_desc: name[+name...]
# % label: Loss, or a sum of losses with +
# % description: Classes: cross_entropy (default), focal, dice, jaccard; presence: bce (default), focal, dice, jaccard; values: mse (default), mae, huber
# % guisection: Learning
# %end

# %option
# % key: class_weights
# % type: string
# % required: no
# % answer: none
# % multiple: yes
# % key_desc: weight
# % description: Weights of classes in the loss: none, balanced, or a number per class in the order of categories
# % guisection: Learning
# %end

# %option
# % key: optimizer
# % type: string
# % required: no
# % options: adamw,adam,sgd
# % answer: adamw
# % description: Optimizer
# % guisection: Learning
# %end

# %option
# % key: learning_rate
# % type: string
# % required: no
# % key_desc: number|auto
# % label: Learning rate, at its highest; auto finds one by a range test
# % description: Default: 0.001, for transformers 0.0003, for sgd 0.01
# % guisection: Learning
# %end

# %option
# % key: weight_decay
# % type: double
# % required: no
# % description: Weight decay (default: 0.01 for adamw, else 0)
# % guisection: Learning
# %end

# %option
# % key: momentum
# % type: double
# % required: no
# % options: 0-1
# % description: Momentum of sgd (default: 0.9)
# % guisection: Learning
# %end

# %option
# % key: scheduler
# % type: string
# % required: no
# % options: none,step,cosine,plateau,onecycle
# % answer: onecycle
# % description: How the learning rate changes
# % guisection: Learning
# %end

# %option
# % key: step
# % type: integer
# % required: no
# % description: Epochs between two changes (step), or without progress before one (plateau) (default: 10)
# % guisection: Learning
# %end

# %option
# % key: gamma
# % type: double
# % required: no
# % description: Factor of the learning rate at a change (step, plateau) (default: 0.1)
# % guisection: Learning
# %end

# %option
# % key: epochs
# % type: integer
# % required: no
# % description: Number of epochs, at most (default: depends on the number of patches)
# % guisection: Learning
# %end

# %option
# % key: batch_size
# % type: string
# % required: no
# % answer: auto
# % key_desc: number|auto
# % label: Patches in a batch, of each device; auto depends on size and number of the patches
# % description: A batch that does not fit the memory is computed in pieces
# % guisection: Learning
# %end

# %option
# % key: patience
# % type: integer
# % required: no
# % label: Epochs without a better validation score after which training ends
# % description: 0: never (default: a third of the epochs, at least 10)
# % guisection: Learning
# %end

# %option
# % key: augment
# % type: string
# % required: no
# % multiple: yes
# % options: flip,rotate,crop,jitter,blur,noise,erase,none
# % label: Random changes of patches, image and label together
# % description: Default: flip,rotate; none for single cells
# % guisection: Learning
# %end

# %option
# % key: pretrain
# % type: string
# % required: no
# % options: none,simclr
# % answer: none
# % label: What the encoder learns first, from patches without labels
# % descriptions: none;nothing;simclr;to tell patches apart, however they are changed
# % guisection: Pre-training
# %end

# %option G_OPT_M_DIR
# % key: unlabelled
# % required: no
# % multiple: yes
# % label: Patch directories to pre-train with; labels in them are not used
# % description: Without patches= the encoder is pre-trained and nothing else, for a later training with weights=
# % guisection: Pre-training
# %end

# %option
# % key: pretrain_epochs
# % type: integer
# % required: no
# % description: Number of epochs of pre-training, at most (default: depends on the number of patches)
# % guisection: Pre-training
# %end

# %option
# % key: temperature
# % type: double
# % required: no
# % options: 0.01-10
# % description: Temperature of the contrastive loss (default: 0.2)
# % guisection: Pre-training
# %end

# %option
# % key: precision
# % type: string
# % required: no
# % options: auto,32,bf16,16
# % answer: auto
# % description: Floating point numbers of the network
# % guisection: Machine
# %end

# %option
# % key: device
# % type: string
# % required: no
# % answer: auto
# % key_desc: auto|cpu|cuda|cuda:N|mps
# % description: Device to train on
# % guisection: Machine
# %end

# %option
# % key: devices
# % type: integer
# % required: no
# % answer: 1
# % description: Number of devices (of processes on a CPU) that train together on each machine
# % guisection: Machine
# %end

# %option
# % key: nodes
# % type: integer
# % required: no
# % answer: 1
# % description: Number of machines that train together, started by torchrun or SLURM
# % guisection: Machine
# %end

# %option
# % key: nprocs
# % type: integer
# % required: no
# % answer: 0
# % description: Number of threads; 0 for all cores, but one for single cells
# % guisection: Machine
# %end

# %option
# % key: seed
# % type: integer
# % required: no
# % answer: 1
# % description: Seed of everything random; the same seed gives the same model on the same CPU
# % guisection: Machine
# %end

# %option G_OPT_M_DIR
# % key: tensorboard
# % required: no
# % description: Directory for the log of TensorBoard
# % guisection: Output
# %end

# %option G_OPT_F_OUTPUT
# % key: onnx
# % required: no
# % description: File to export the model to, for ONNX runtimes and the QGIS plugin Deepness
# % guisection: Output
# %end

# %option
# % key: format
# % type: string
# % required: no
# % options: plain,json
# % answer: plain
# % description: Format of the scores on standard output
# % guisection: Output
# %end

# %flag
# % key: r
# % description: Go on with an interrupted run
# %end

# %flag
# % key: c
# % description: Check everything and train nothing
# %end

# %rules
# % required: patches,unlabelled
# % requires: onnx,patches
# % exclusive: -r,-c
# %end

import json
import locale
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

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


def job(options: dict, flags: dict) -> dict | None:
    """Train, print the scores, and export."""
    from rlearndeep.backends import get_backend, is_helper
    from rlearndeep.files import check_listable
    from rlearndeep.gis.session import command_line, say
    from rlearndeep.learning.exporting import export
    from rlearndeep.learning.options import from_options
    from rlearndeep.learning.pretrained import alone_text, prepare_alone, pretrain_alone
    from rlearndeep.learning.resuming import finished
    from rlearndeep.learning.training import (
        check_exportable,
        check_target,
        model_directory,
        prepare,
        score_text,
        train,
    )
    from rlearndeep.patches import PatchDataset

    settings = from_options(options)
    if is_helper(settings):
        os.environ["GRASS_VERBOSE"] = "-1"
    check_listable(options["model"], "model")
    target, onnx = model_directory(options["model"]), Path(options["onnx"]) if options["onnx"] else None
    overwrite, resume = gs.overwrite(), flags["r"]
    check_target(target, overwrite, resume)
    backend = get_backend(options["backend"])
    if onnx:
        before = finished(target) if resume else None
        backend.check_onnx(onnx, overwrite or bool(before and before.onnx == onnx.absolute()))
    if options["patches"]:
        datasets = [PatchDataset.open(path) for path in options["patches"].split(",")]
        plan, (learn, text) = prepare(datasets, settings, backend), (partial(train, onnx=onnx), score_text)
        if onnx:
            check_exportable(plan)
    else:
        plan, (learn, text) = prepare_alone(settings, backend), (pretrain_alone, alone_text)
    for remark in plan.remarks:
        gs.warning(remark)
    gs.message(plan.text())
    if flags["c"]:
        return plan.summary()
    how = {"overwrite": overwrite, "resume": resume, "progress": tell, "warn": gs.warning}
    scores = learn(plan, target, backend, command=command_line(), **how)
    if scores is None:  # a process that helped the first one
        return None
    # Before the export, which may fail.
    say(json.dumps(scores, indent=1, ensure_ascii=False) if options["format"] == "json" else text(scores))
    gs.message(_("Model written to '{}'.").format(target))
    if onnx:
        export(target, backend, onnx, command=command_line(), warn=gs.warning)
        gs.message(_("Model exported to '{}'.").format(onnx))
    return None


def tell(done: int, total: int, text: str) -> None:
    """Show the progress of epochs: percents, and a line for each epoch, or for some of many."""
    from rlearndeep.learning.progress import is_told

    (gs.message if is_told(done, total) else gs.verbose)(text)
    gs.percent(done, total, 1)


def main() -> None:
    """Read the options and run the job."""
    read_utf8()
    options, flags = gs.parser()
    find_library()
    from rlearndeep.gis.session import run

    run(job, options, flags)


if __name__ == "__main__":
    main()
