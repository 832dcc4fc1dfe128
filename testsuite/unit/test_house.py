"""The house is in order: style, types, manuals, and what a reader is promised."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")
MANUALS = [ROOT / "r.learn.deep.md", *(ROOT / tool / f"{tool}.md" for tool in TOOLS)]
TUTORIALS = sorted((ROOT / "tutorials").glob("*.md"))
PYTHON_FILES = sorted(
    file
    for place in ("lib", "tools", "examples", "demo", *TOOLS)
    for file in (ROOT / place).rglob("*.py")
    if "output" not in file.parts
)


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_code_is_free_of_lint() -> None:
    run("ruff", "check", ".")


def test_the_code_has_the_one_format() -> None:
    run("ruff", "format", "--check", ".")


def test_the_types_agree() -> None:
    run("mypy")


@pytest.mark.parametrize("manual", MANUALS, ids=lambda manual: manual.stem)
def test_the_html_manual_is_the_one_made_from_the_markdown_manual(manual: Path) -> None:
    html = load(ROOT / "tools" / "manual_html.py").to_html(manual.read_text(encoding="utf-8"))
    assert manual.with_suffix(".html").read_text(encoding="utf-8") == html, "run: make manuals"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_html_page_of_a_tutorial_is_the_one_made_from_markdown(page: Path) -> None:
    html = load(ROOT / "tools" / "manual_html.py").to_page(page.read_text(encoding="utf-8"))
    assert page.with_suffix(".html").read_text(encoding="utf-8") == html, "run: make manuals"


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_suite_page_leads_to_each_tutorial(page: Path) -> None:
    assert f"(tutorials/{page.name})" in (ROOT / "r.learn.deep.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("manual", MANUALS, ids=lambda manual: manual.stem)
def test_a_manual_has_the_sections_of_grass_manuals(manual: Path) -> None:
    headings = [line[3:] for line in manual.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    assert headings[0] == "DESCRIPTION"
    assert {"EXAMPLES", "SEE ALSO", "AUTHORS"} <= set(headings)


@pytest.mark.parametrize("file", PYTHON_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_functions_are_short_and_public_ones_say_what_they_do(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
    if "lib" in file.relative_to(ROOT).parts[:1]:
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_stands_where_grass_looks_for_it(tool: str) -> None:
    script = ROOT / tool / f"{tool}.py"
    assert script.stat().st_mode & 0o111, "not executable"
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")
    assert {f"{tool}.py", f"{tool}.md", f"{tool}.html", "Makefile", "CMakeLists.txt"} <= {
        file.name for file in script.parent.iterdir()
    }
    for build_file, line in (("Makefile", f"PGM = {tool}"), ("CMakeLists.txt", f"project({tool} LANGUAGES NONE)")):
        assert line in (script.parent / build_file).read_text(encoding="utf-8").splitlines()
