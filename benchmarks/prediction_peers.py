#!/usr/bin/env python3
"""Prediction against the scripts that people write: same network, same weights, same scene, class map at the end.

benchmarks/prediction_peers.py [side of the square scene in cells, default 2048]

Start-up, loading of the network and the export of the bands to a tiled GeoTIFF are not counted. The peers are a loop
over windows with rasterio, the grid sampler of TorchGeo, the learner of Raster Vision, and for a perceptron
r.learn.predict of r.learn.ml2. Peers that are not installed are named as left out. They run in processes of their own,
away from GRASS's libraries.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

from prediction import end_to_end, model_directory
from session import arguments, project, restart_with_libraries, run_apart, square

BANDS, ROUNDS, TURNS = 5, 3, 5

COMMON = """
import sys, time
from pathlib import Path
import numpy as np, rasterio, torch
import segmentation_models_pytorch as smp
from safetensors.torch import load_file
stack, weights, out = sys.argv[1:4]
model = smp.Unet("resnet18", encoder_weights=None, in_channels=5, classes=7).eval()
model.load_state_dict({name.removeprefix("inner."): value for name, value in load_file(weights).items()})
"""

RASTERIO = (
    COMMON
    + """
from rasterio.windows import Window
start = time.perf_counter()
with rasterio.open(stack) as source, torch.inference_mode():
    profile = source.profile | {"count": 1, "dtype": "uint8", "driver": "GTiff"}
    with rasterio.open(out, "w", **profile) as sink:
        for row in range(0, source.height, 256):
            for col in range(0, source.width, 256):
                window = Window(col, row, min(256, source.width - col), min(256, source.height - row))
                image = (source.read(window=window).astype(np.float32) - 3000) / 500
                sink.write(model(torch.from_numpy(image)[None])[0].argmax(0).byte().numpy(), 1, window=window)
print(time.perf_counter() - start)
"""
)

TORCHGEO = (
    COMMON
    + """
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler
class Stack(RasterDataset):
    filename_glob = Path(stack).name
dataset, workers = Stack(str(Path(stack).parent)), int(sys.argv[4])
start = time.perf_counter()
with rasterio.open(stack) as source:
    profile = source.profile | {"count": 1, "dtype": "uint8", "driver": "GTiff"}
places = list(GridGeoSampler(dataset, 256, 256))
loader = DataLoader(dataset, batch_size=4, sampler=places, collate_fn=stack_samples, num_workers=workers)
done = 0
with rasterio.open(out, "w", **profile) as sink, torch.inference_mode():
    for batch in loader:
        for classes in model((batch["image"] - 3000) / 500).argmax(1).byte().numpy():
            x, y = places[done][:2]
            row, col = sink.index(x.start + 0.5, y.stop - 0.5)
            rows, cols = (min(256, profile[side] - first) for side, first in (("height", row), ("width", col)))
            sink.write(classes[:rows, :cols], 1, window=((row, row + rows), (col, col + cols)))
            done += 1
print(time.perf_counter() - start)
"""
)


RASTERVISION = (
    COMMON
    + """
from rastervision.core.data import ClassConfig, RasterioSource, Scene, SemanticSegmentationLabels
from rastervision.pytorch_learner import (
    SemanticSegmentationGeoDataConfig, SemanticSegmentationLearner, SemanticSegmentationLearnerConfig,
    SemanticSegmentationSlidingWindowGeoDataset, SolverConfig,
)
class Normalized(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model
    def forward(self, images):
        return self.inner((images - 3000) / 500)
start = time.perf_counter()
classes = ClassConfig(names=[str(number) for number in range(7)], null_class="0")
source = RasterioSource(stack, channel_order=list(range(5)))
scene = Scene(id="scene", raster_source=source)
dataset = SemanticSegmentationSlidingWindowGeoDataset(scene, size=256, stride=256, normalize=False)
data = SemanticSegmentationGeoDataConfig(class_config=classes, img_sz=256, img_channels=5, num_workers=0)
config = SemanticSegmentationLearnerConfig(data=data, solver=SolverConfig(batch_sz=4))
learner = SemanticSegmentationLearner(config, model=Normalized(), training=False)
shape = {"out_shape": (256, 256)}
answers = learner.predict_dataset(dataset, raw_out=False, numpy_out=True, predict_kw=shape, progress_bar=False)
labels = SemanticSegmentationLabels.from_predictions(
    dataset.windows, answers, extent=source.extent, num_classes=7, smooth=False
)
labels.save(str(Path(out).with_suffix("")), source.crs_transformer, classes)
print(time.perf_counter() - start)
"""
)


def make_scene(side: int) -> None:
    """Bands of 16 bit with noise, as a group."""
    subprocess.run(["g.region", *square(side)], check=True)
    names = [f"band{number}" for number in range(1, BANDS + 1)]
    for number, name in enumerate(names, 1):
        expression = f"{name} = int(3000 + 800 * sin(row() * {number + 1}) + rand(0, 500))"
        subprocess.run(["r.mapcalc", "-s", expression], check=True)
    subprocess.run(["i.group", "group=scene", f"input={','.join(names)}"], check=True, capture_output=True)


def ours(model: tuple, precision: str, overlap: int | None, cells: int) -> tuple[str, float]:
    """A name, and median cells per second. The tiles of the peers do not overlap: their maps have seams."""
    from rlearndeep.backends import get_backend

    predictor = get_backend("torch").load(*model, precision=precision)
    seconds = [end_to_end(predictor, model[1], ["class"], overlap)[0] for _ in range(ROUNDS)]
    name = f"ours, {predictor.precision}{', overlap=0' if overlap == 0 else ''}"
    return name, cells / statistics.median(seconds)


def peer(package: str, code: str, arguments: list[str], cells: int) -> float | str:
    """Median cells per second, or why it was left out."""
    found = [run_apart(package, code, arguments) for _ in range(ROUNDS)]
    seconds = [answer for answer in found if not isinstance(answer, str)]
    return cells / statistics.median(seconds) if len(seconds) == ROUNDS else str(found[-1])


def perceptrons(place: Path, side: int) -> None:
    """The command against r.learn.predict, with one perceptron of the same weights, and whether the maps are equal."""
    if shutil.which("r.learn.predict") is None:
        line("r.learn.predict", "left out: r.learn.ml2 is not installed")
        return
    directory, card = model_directory(place, "mlp", {"hidden": [128, 64]}, patch=(1, 1))
    write_estimator(directory / card.weights, place / "estimator.joblib")
    theirs = ["r.learn.predict", "group=scene", f"load_model={place / 'estimator.joblib'}", "output=theirs"]
    tool = ["r.learn.deep.predict", "group=scene", f"model={directory}", "output=ours", "precision=32"]
    whole = in_turns({"theirs": theirs, "ours": tool})
    subprocess.run(["r.mapcalc", "different = if(ours == theirs, 0, 1)"], check=True)
    subprocess.run(["g.region", *square(50)], check=True)
    start = in_turns({"theirs": theirs, "ours": tool})
    subprocess.run(["g.region", "raster=different"], check=True)
    statistic = subprocess.run(["r.univar", "-g", "map=different"], check=True, capture_output=True, text=True).stdout
    unequal = next(float(text[4:]) for text in statistic.splitlines() if text.startswith("sum="))
    net = {name: whole[name] - start[name] for name in whole}
    for name, label in (("theirs", "perceptron, r.learn.predict"), ("ours", "perceptron, ours, 32")):
        line(label, side * side / net[name], side * side / net["theirs"])
    ratio = whole["theirs"] / whole["ours"]
    print(f"    whole process: {whole['theirs']:.1f} s and {whole['ours']:.1f} s, ratio {ratio:.2f}")
    print(f"    start-up: {start['theirs']:.1f} s and {start['ours']:.1f} s")
    print(f"    cells of another class: {unequal:.0f} of {side * side}", flush=True)


def in_turns(commands: dict[str, list[str]]) -> dict[str, float]:
    """Median seconds of each of several commands."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for name in list(commands) * TURNS:
        start = time.perf_counter()
        subprocess.run(commands[name], check=True, capture_output=True)
        times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def write_estimator(weights: Path, file: Path) -> None:
    """A perceptron of scikit-learn with the weights of ours, as r.learn.train saves it."""
    import joblib
    import numpy as np
    from safetensors.numpy import load_file
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random, classes = np.random.default_rng(0), np.arange(1, 8)
    estimator = make_pipeline(StandardScaler(), MLPClassifier((128, 64), max_iter=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(random.normal(size=(700, BANDS)), np.repeat(classes, 100))
    scaler, network = estimator[0], estimator[1]
    scaler.mean_, scaler.scale_ = np.full(BANDS, 3000.0), np.full(BANDS, 500.0)
    layers = load_file(weights)
    names = sorted({name.partition(".")[0] for name in layers}, key=int)
    network.coefs_ = [layers[f"{name}.weight"][:, :, 0, 0].T.astype(np.float64) for name in names]
    network.intercepts_ = [layers[f"{name}.bias"].astype(np.float64) for name in names]
    joblib.dump((estimator, classes, {}), file)


def line(name: str, speed: float | str, best: float | None = None) -> None:
    """Print a row."""
    if isinstance(speed, str):
        print(f"{name:34}{speed}", flush=True)
        return
    print(f"{name:34}{speed / 1e6:8.2f}{f'{speed / best:8.2f}' if best else ''}", flush=True)


def main(side: int) -> None:
    """Print million cells per second, and the ratio to the best peer."""
    restart_with_libraries()
    with project(), tempfile.TemporaryDirectory() as place:
        make_scene(side)
        unet = model_directory(Path(place), "unet", {"encoder": "resnet18"}, patch=(128, 128), stride=32, reach=32)
        stack = Path(place) / "stack.tif"
        options = ["format=GTiff", "createopt=TILED=YES,COMPRESS=ZSTD", "type=UInt16", f"output={stack}"]
        subprocess.run(["r.out.gdal", "-f", "-c", "input=scene", *options], check=True, stderr=subprocess.DEVNULL)
        arguments = [str(stack), str(unet[0] / unet[1].weights), str(Path(place) / "classes.tif")]
        print(f"{side} x {side} cells, million cells per second, medians of {ROUNDS}; ratio to the best peer")
        found = {
            "rasterio loop": peer("rasterio", RASTERIO, arguments, side * side),
            "TorchGeo, no workers": peer("torchgeo", TORCHGEO, [*arguments, "0"], side * side),
            "TorchGeo, 2 workers": peer("torchgeo", TORCHGEO, [*arguments, "2"], side * side),
            "Raster Vision": peer("rastervision.pytorch_learner", RASTERVISION, arguments, side * side),
        }
        best = max((speed for speed in found.values() if not isinstance(speed, str)), default=None)
        for name, speed in found.items():
            line(name, speed)
        for precision in ("32", "auto"):
            for overlap in (None, 0):
                line(*ours(unet, precision, overlap, side * side), best)
        perceptrons(Path(place), side)


if __name__ == "__main__":
    main(**arguments(__doc__, side=2048))
