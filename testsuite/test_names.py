"""Names and labels of every kind pass through all tools, whatever the locale of the shell that calls them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conftest import Grass

LABELS = {1: "Gewässer", 2: "Blütenwiese"}


def test_the_four_tools_read_utf8_where_the_locale_knows_ascii_only(
    grass_crs: Callable[[str], Grass], tmp_path: Path
) -> None:
    grass = grass_crs("EPSG:32632")  # whose text has a degree sign
    place = tmp_path / "Jörgs Karten"
    place.mkdir()
    rules = "".join(f"{category}:{label}\n" for category, label in LABELS.items())
    grass.ok("g.region", "n=40", "s=0", "w=0", "e=40", "res=1")
    grass.ok("r.mapcalc", "cover = 1 + (int(row() / 10) + int(col() / 10)) % 2")
    grass.ok("r.category", "cover", "separator=:", "rules=-", stdin=rules)
    grass.ok("r.mapcalc", "band = 100 * cover + rand(0, 90)", "seed=1")
    grass.ok("i.group", "group=scene", "input=band")
    grass.ok("r.to.vect", "cover", "output=areas", "type=area", "column=number")
    ascii_only = {"LC_ALL": "C"}

    sampled = grass.json(
        "v.sample.patches",
        "group=scene",
        "input=areas",
        "column=label",
        f"where=label IN ('{LABELS[1]}', '{LABELS[2]}')",
        "size=1",
        "output=places",
        f"patches={place / 'Stücke'}",
        **ascii_only,
    )
    trained = grass.json(
        "r.learn.deep.train",
        f"patches={place / 'Stücke'}",
        f"model={place / 'Hülle'}",
        "hidden=4",
        "epochs=1",
        **ascii_only,
    )
    predicted = grass.json(
        "r.learn.deep.predict",
        "group=scene",
        f"model={place / 'Hülle'}",
        "output=predicted",
        "segments=cover",
        f"segments_table={place / 'Flächen.csv'}",
        **ascii_only,
    )
    assessed = grass.json(
        "r.learn.deep.evaluate",
        "input=predicted",
        "vector=areas",
        "column=label",
        f"report={place / 'Güte.html'}",
        **ascii_only,
    )

    labels = sorted(LABELS.values())
    for classes in (
        sampled["classes"],
        trained["parts"]["test"]["classes"],
        predicted["classes"],
        assessed["maps"][0]["classes"],
    ):
        assert [entry["label"] for entry in classes] == labels
    assert {file.name for file in place.iterdir()} == {"Stücke", "Hülle", "Flächen.csv", "Güte.html"}
    assert any(label in (place / "Flächen.csv").read_text(encoding="utf-8") for label in labels)


def test_directories_whose_names_the_next_tool_would_take_for_two_are_refused(grass: Grass, tmp_path: Path) -> None:
    sample = "v.sample.patches", "group=scene", "raster=cover", "output=places", f"patches={tmp_path}/a,b"
    train = "r.learn.deep.train", f"patches={tmp_path}/patches", f"model={tmp_path}/a,b"
    for command in (sample, train):
        assert "none has a comma in its name" in grass.error(*command)
    assert list(tmp_path.glob("a*")) == []
