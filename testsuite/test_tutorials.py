"""The tutorials: each script runs from import to results, and each page keeps what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DATA

TUTORIALS = Path(__file__).resolve().parent.parent / "tutorials"
RESULT = 70  # columns of the name of a result

# What each of the rebuilt systems needed, in the words of those who describe it.
NEEDS = {
    "r1_land_cover": (
        "U-Net",
        "dilated FCN",
        "n bands + nDSM at its own resolution",
        "64 and 128 patches",
        "the accuracy report",
        "transfer to another region",
        "segment aggregation",
    ),
    "r2_nature_types": (
        "strict rule",
        "per-class split",
        "split by a column (site, parent class)",
        "duplicate removal and leak report",
        "agreement of two maps",
        "ResNet-18 and Swin",
        "ImageNet weights with n bands, freezing",
        "perceptron with per-pixel standardisation and dropout",
        "regression",
        "macro F1 over the last 10 epochs",
        "confusion matrix and curves as pictures",
        "classes at several levels",
    ),
    "r3_young_forest": (
        "object crops with padding",
        "first-layer widening",
        "SGD + step",
        "several dates per place",
        "split by date and by region",
        "point density as target with percentile",
        "ignore mask from a classification map",
        "DeepLabV3 with one continuous output",
        "masked MSE",
        "IoU (Jaccard) loss",
    ),
    "r4_weather_model": (
        "raster labels coarser than the imagery",
        "class levels from a table",
        "multi-label patches",
        "a classifier's trunk as encoder",
        "two maps against one reference, with OA and IoU per class",
        "several regions in one training run",
    ),
    "r5_aerial_and_series": (
        "several sources per patch, each at its own resolution and extent",
        "time series (several dates of one sensor)",
        "two-branch fusion network with temporal attention",
        "SimCLR pre-training on unlabelled patches, then fine-tuning",
        "class weights",
        "IoU per class and mean IoU",
    ),
}


def one_line(text: str) -> str:
    """A text without continued lines and repeated blanks."""
    return " ".join(text.replace("\\\n", " ").split())


def table_of_needs(page: str) -> dict[str, str]:
    """The rows of the page's table 'needed | where', first cell to second."""
    found = re.search(r"\| needed \| where \|\n\| --- \| --- \|\n((?:\|.*\|\n)+)", page)
    assert found, "the page has no table 'needed | where'"
    rows = (line.strip("|").split(" | ", 1) for line in found.group(1).splitlines())
    return {need.strip(): where.strip() for need, where in rows}


def results_of(work: Path) -> dict[str, list[float]]:
    """Numbers of results.txt by their names."""
    text = (work / "results.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line[:RESULT].strip(): [float(text) for text in line[RESULT:].split()] for line in lines}


@pytest.fixture(scope="module")
def environment(grass_env: dict[str, str]) -> dict[str, str]:
    """That of a user who has started no GRASS session; without add-ons."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "GRASS_ADDON_BASE": grass_env["GRASS_ADDON_BASE"], "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def scenes(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real scenes where they lie beside this checkout, invented ones otherwise."""
    if DATA.is_dir():
        return DATA
    invented = tmp_path_factory.mktemp("scenes") / "invented"
    call(environment, TUTORIALS / "invented_data.sh", invented)
    return invented


def call(environment: dict[str, str], *command: str | Path) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.fixture
def run_tutorial(environment: dict[str, str], scenes: Path, tmp_path: Path):
    """Function that runs a tutorial at quick size; gives its results and its directory."""

    def run(name: str) -> tuple[dict[str, list[float]], Path]:
        work = tmp_path / name
        call(environment, TUTORIALS / f"{name}.sh", scenes, work, "quick")
        results = results_of(work)
        promised = re.findall(r'^ *result "([^"$]*)"', (TUTORIALS / f"{name}.sh").read_text(encoding="utf-8"), re.M)
        assert set(promised) <= set(results)
        for title, numbers in results.items():
            assert numbers, f"{title}: no number"
            if "accuracy" in title or "F1" in title:
                assert all(-1 <= number <= 1 for number in numbers), f"{title}: {numbers}"
        return results, work

    return run


def numbers(results: dict[str, list[float]], beginning: str) -> list[float]:
    """Numbers of the one result whose name begins so."""
    (found,) = (values for title, values in results.items() if title.startswith(beginning))
    return found


@pytest.mark.parametrize("name", NEEDS)
def test_a_page_says_where_each_need_is_met_and_the_script_does_it(name: str) -> None:
    page = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    script = one_line((TUTORIALS / f"{name}.sh").read_text(encoding="utf-8"))
    table = table_of_needs(page)
    assert tuple(table) == NEEDS[name]
    for need, where in table.items():
        commands = re.findall(r"`([^`]+)`", where)
        assert commands, f"{need}: no command"
        for command in commands:
            assert command in script, f"{need}: {command}"


@pytest.mark.parametrize("name", NEEDS)
def test_the_commands_of_a_page_are_those_of_its_script(name: str) -> None:
    page = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    script = one_line((TUTORIALS / f"{name}.sh").read_text(encoding="utf-8"))
    for block in re.findall(r"```sh\n(.*?)```", page, re.S):
        for line in one_line_each(block):
            assert line in script, line


def one_line_each(block: str) -> list[str]:
    """Commands of a block, each without continued lines; the calls of tutorials are left out."""
    lines = (one_line(line) for line in block.replace("\\\n", " ").splitlines())
    return [line for line in lines if line and ".sh DATA" not in line]


@pytest.mark.parametrize("name", NEEDS)
def test_a_page_shows_the_results_that_its_script_prints(name: str) -> None:
    page = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    script = (TUTORIALS / f"{name}.sh").read_text(encoding="utf-8")
    shown = re.search(r"```text\n(.*?)```", page, re.S).group(1)
    promised = re.findall(r'^ *result "([^"$]*)"', script, re.M)
    assert promised or "$map" in script
    for title in promised:
        assert title in shown, title
    assert len(shown.splitlines()) >= len(promised)


@pytest.mark.parametrize("name", NEEDS)
def test_the_pictures_of_a_page_are_there_and_small(name: str) -> None:
    page = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    pictures = re.findall(r'(?:src="|!\[[^]]*\]\()([^")]+\.png)', page)
    assert pictures
    for picture in pictures:
        assert 500 < (TUTORIALS / picture).stat().st_size < 150_000, picture


def test_land_cover(run_tutorial) -> None:
    results, work = run_tutorial("r1_land_cover")
    assert len(results) == 8 and all(len(values) == 4 for values in results.values())
    assert (work / "networks.html").is_file()
    table = (work / "segments.csv").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("cat|class|label|confidence|") and len(table) > 50


def test_nature_types(run_tutorial, scenes: Path) -> None:
    results, work = run_tutorial("r2_nature_types")
    identical, left = numbers(results, "identical cells")
    assert identical / (identical + left) == pytest.approx(0.75, abs=0.04)
    if scenes == DATA:
        assert numbers(results, "random split")[0] > numbers(results, "blocks")[0]
    ground, main = numbers(results, "mappers agree")
    assert 50 < ground <= main <= 100
    for report in ("ground.html", "mlp_block/report.html", "swin/report.html"):
        assert "<img" in (work / report).read_text(encoding="utf-8") or "<svg" in (work / report).read_text("utf-8")


def test_young_forest(run_tutorial) -> None:
    results, _ = run_tutorial("r3_young_forest")
    rmse, mae, _ = numbers(results, "stems per cell")
    assert 0 < mae <= rmse < 1
    assert numbers(results, "cells, split by date") and numbers(results, "cells, split by region")


def test_weather_model(run_tutorial) -> None:
    results, work = run_tutorial("r4_weather_model")
    assert 0 <= numbers(results, "North Carolina, McNemar")[0] <= 1
    assert "with_trunk" in (work / "maps.html").read_text(encoding="utf-8")


def test_aerial_and_series(run_tutorial) -> None:
    results, work = run_tutorial("r5_aerial_and_series")
    for name in ("scratch", "tuned", "image_alone", "series_alone"):
        mean = numbers(results, f"{name}: overall accuracy")[1]
        each = numbers(results, f"{name}: IoU per class")
        assert sum(each) / len(each) == pytest.approx(mean, abs=0.001)
    assert "series_alone" in (work / "maps.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("only",), "Usage:"),
        (("absent", "new"), "'absent' is none"),
        ((".", "."), "'.' exists"),
        ((".", "new", "huge"), "'huge' was given"),
    ],
)
def test_wrong_arguments_are_told_and_nothing_is_written(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    command = [TUTORIALS / "r1_land_cover.sh", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert not list(tmp_path.iterdir())
