#!/usr/bin/env python3
"""Install or remove the add-on without network: ``tools/addon.py install`` or ``tools/addon.py remove``.

It does what ``g.extension`` does with a local directory - build with GRASS's own Makefiles, copy into the add-on
directory, register in its XML files - but asks nothing of any server, and needs neither a compiler nor svn or git.
The place is GRASS_ADDON_BASE; without it, the add-on directory that GRASS itself would choose for this user.
Standard library only: it runs before anything is set up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
SUITE = "r.learn.deep"
TOOLS = ("v.sample.patches", "r.learn.deep.train", "r.learn.deep.predict", "r.learn.deep.evaluate")

# GRASS 8.4 and 8.5 ask git for the newest branch of the official add-ons whenever they write a manual page, and
# refuse to write it when the network is away. The answer only makes a link at the end of the page.
GIT_OFFLINE = """#!/bin/sh
test "$1" = ls-remote && echo refs/heads/grass8
"""


def expected_files(root: Path = ROOT) -> list[str]:
    """Every file an installation of the tree at ``root`` has, relative to the add-on directory.

    Manuals in Markdown are not among them: no version of GRASS installs those of add-ons.
    """
    library = sorted(
        f"etc/{SUITE}/{module.relative_to(root / 'lib').as_posix()}"
        for module in (root / "lib" / "rlearndeep").rglob("*.py")
    )
    manuals = [f"docs/html/{name}.html" for name in (SUITE, *TOOLS)]
    pictures = [f"docs/html/{picture.name}" for tool in TOOLS for picture in (root / tool).glob("*.png")]
    tutorials = [
        f"docs/html/tutorials/{file.name}"
        for file in (root / "tutorials").iterdir()
        if file.suffix in (".html", ".png", ".sh")
    ]
    man = [f"docs/man/man1/{name}.1" for name in (SUITE, *TOOLS)]
    return sorted([*library, *manuals, *pictures, *tutorials, *man, *(f"scripts/{tool}" for tool in TOOLS)])


def main(action: str) -> None:
    """Install or remove; starts itself again inside a GRASS session when there is none."""
    if not {"GISRC", "GISBASE", "GRASS_ADDON_BASE"} <= set(os.environ):
        _run_in_session(action)
    # What GRASS itself says on standard error is hidden by the caller; what goes wrong here must not be.
    sys.stderr = sys.stdout
    prefix = Path(os.environ["GRASS_ADDON_BASE"]).absolute()
    try:
        if action == "remove":
            remove(prefix)
        else:
            with tempfile.TemporaryDirectory(prefix="rlearndeep.") as scratch:
                install(build(Path(scratch)), prefix)
            register(prefix)
    except OSError as error:
        _fail(f"The add-on directory must be writable; {prefix} is not ({error}). Choose another GRASS_ADDON_BASE.")
    print(f"{SUITE} is {'removed from' if action == 'remove' else 'installed in'} {prefix}.")


def _run_in_session(action: str) -> NoReturn:
    """GRASS knows where this user's add-ons are, and its manuals are written in a session only."""
    if not shutil.which("grass"):
        _fail("GRASS is needed and 'grass' is not on the PATH. Install GRASS, or add its directory to PATH.")
    shown = subprocess.run(["grass", "--help"], capture_output=True, text=True, check=False)
    project = "--tmp-project" if "--tmp-project" in shown.stdout + shown.stderr else "--tmp-location"
    command = ["grass", project, "XY", "--exec", sys.executable, __file__, action]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    sys.exit(done.returncode)


def _fail(message: str) -> NoReturn:
    print(f"ERROR: {message}", flush=True)
    sys.exit(1)


def build(scratch: Path) -> Path:
    """Build a copy of the tree, so that the checkout may be read-only and stays as it is."""
    gisbase = Path(os.environ["GISBASE"])
    if not (gisbase / "include" / "Make" / "Script.make").is_file():
        _fail(f"GRASS's Makefiles are needed; '{gisbase}/include/Make' has none. Install the package grass-dev.")
    if not shutil.which("make"):
        _fail("The program 'make' is needed and not on the PATH. Install the package make.")
    source = scratch / SUITE
    source.mkdir()
    for name in ("Makefile", f"{SUITE}.html", f"{SUITE}.md"):
        shutil.copy(ROOT / name, source)
    for name in ("lib", "tutorials", *TOOLS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = scratch / "bin" / "git"
    git.parent.mkdir()
    git.write_text(GIT_OFFLINE)
    git.chmod(0o755)
    _make(source, *_places(source), f"RUN_GISRC={os.environ['GISRC']}")
    return source


def _places(source: Path) -> list[str]:
    """Make variables that keep GRASS's build inside ``source``."""
    docs = source / "docs"
    return [
        f"BIN={source / 'bin'}",
        f"HTMLDIR={docs / 'html'}",
        f"MDDIR={docs / 'mkdocs'}",
        f"RESTDIR={docs / 'rest'}",
        f"MANBASEDIR={docs / 'man'}",
        f"SCRIPTDIR={source / 'scripts'}",
        f"STRINGDIR={source}",
        f"ETC={source / 'etc'}",
        f"ERRORLOG={source / 'error.log'}",
    ]


def _make(source: Path, *arguments: str) -> None:
    environment = {**os.environ, "PATH": f"{source.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    # What the make that started us was told is not meant for GRASS's Makefiles.
    for variable in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SOURCE_URL"):
        environment.pop(variable, None)
    command = ["make", "--silent", "-C", str(source), f"MODULE_TOPDIR={os.environ['GISBASE']}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    # GRASS's Makefiles go on after the failure of a subdirectory, and only note it.
    if done.returncode or (source / "error.log").exists():
        print(done.stderr)
        _fail("GRASS's make failed; its output is above.")


def install(built: Path, prefix: Path) -> None:
    """Put what was built in the place of what is in the add-on directory, once all of it is there."""
    # GRASS's Makefiles know no blanks or quotes in the name of a directory.
    ready = built.parent / "installed"
    for directory in ("scripts", "etc", "docs/html", "docs/man/man1"):
        (ready / directory).mkdir(parents=True)
    _make(built, f"ARCH_DISTDIR={built}", f"INST_DIR={ready}", "install")
    missing = [name for name in expected_files(built) if not (ready / name).is_file()]
    if missing:
        _fail(f"The installation is incomplete; it has no {', '.join(missing)}.")
    remove(prefix)
    for file in filter(Path.is_file, ready.rglob("*")):
        place = prefix / file.relative_to(ready)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    _join_manuals(Path(os.environ["GISBASE"]) / "docs" / "html", prefix / "docs" / "html")


def _join_manuals(core: Path, ours: Path) -> None:
    """Let our pages look like GRASS's, and their links to GRASS's own tools lead to its manual."""
    for name in ("grass_logo.png", "grassdocs.css", "hamburger_menu.svg", "hamburger_menu_close.svg"):
        if (core / name).is_file():
            shutil.copy(core / name, ours)
    other = re.compile(r'(<a href=")((?!' + "|".join(map(re.escape, (SUITE, *TOOLS))) + r")[\w.]+\.html)")
    for name in (SUITE, *TOOLS):
        page = ours / f"{name}.html"
        page.write_text(other.sub(rf"\1{core.as_uri()}/\2", page.read_text("UTF-8")), "UTF-8")


def register(prefix: Path) -> None:
    """Tell GRASS of the tools, for the menu of its window and for ``g.extension`` (-a, operation=remove)."""
    modules = _read(prefix / "modules.xml")
    for tool in TOOLS:
        interface = _interface(prefix / "scripts" / tool)
        task = ET.SubElement(modules.getroot(), "task", name=tool)
        ET.SubElement(task, "description").text = (interface.findtext("description") or "").strip()
        ET.SubElement(task, "keywords").text = (interface.findtext("keywords") or "").strip()
    _write(modules, prefix / "modules.xml")

    extensions = _read(prefix / "extensions.xml")
    task = ET.SubElement(extensions.getroot(), "task", name=SUITE)
    files = ET.SubElement(task, "binary")
    for name in expected_files():
        ET.SubElement(files, "file").text = str(prefix / name)
    names = ET.SubElement(task, "modules")
    for tool in TOOLS:
        ET.SubElement(names, "module").text = tool
    _write(extensions, prefix / "extensions.xml")


def _interface(script: Path) -> ET.Element:
    shown = subprocess.run([script, "--interface-description"], capture_output=True, text=True, check=False)
    try:
        return ET.fromstring(shown.stdout)
    except ET.ParseError:
        _fail(f"{script} does not describe itself: {shown.stderr.strip() or 'it printed nothing'}")


def remove(prefix: Path) -> None:
    """Remove every file and entry of the suite; what is not there is no error."""
    for name in expected_files():
        (prefix / name).unlink(missing_ok=True)
    shutil.rmtree(prefix / "etc" / SUITE, ignore_errors=True)
    tutorials = prefix / "docs" / "html" / "tutorials"
    if tutorials.is_dir() and not any(tutorials.iterdir()):
        tutorials.rmdir()
    for file in (prefix / "modules.xml", prefix / "extensions.xml"):
        if file.is_file():
            tree = _read(file)
            for task in tree.getroot().findall("task"):
                if task.get("name") in (SUITE, *TOOLS):
                    tree.getroot().remove(task)
            _write(tree, file)


def _read(file: Path) -> ET.ElementTree:
    if file.is_file():
        try:
            return ET.parse(file)
        except ET.ParseError as error:
            _fail(f"'{file}' is damaged ({error}). Remove or mend it: GRASS lists its add-ons in it.")
    return ET.ElementTree(ET.Element("addons", version="8"))


def _write(tree: ET.ElementTree, file: Path) -> None:
    ET.indent(tree, "    ")
    tree.write(file, encoding="UTF-8", xml_declaration=True)


if __name__ == "__main__":
    if sys.argv[1:] not in (["install"], ["remove"]):
        _fail(f"Say what to do: {sys.argv[0]} install, or {sys.argv[0]} remove.")
    main(sys.argv[1])
