#!/usr/bin/env python3
"""Take over what finished tutorials made: ``tools/tutorials.py WORK...``, each the directory of a run of ``full`` size.

Pictures are copied beside the pages, and the results of a page are replaced by those of the run. Look at both before
they are committed; the text around them may no longer fit.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import manual_html

TUTORIALS = Path(__file__).resolve().parent.parent / "tutorials"
BLOCK = re.compile(r"(?<=```text\n).*?(?=```)", re.DOTALL)


def take_over(work: Path) -> None:
    """Pictures and results of one run."""
    pictures = sorted(work.glob("r[0-9]_*.png"))
    if not pictures or not (work / "results.txt").is_file():
        sys.exit(f"A finished run has pictures and results.txt; '{work}' has not. Run a tutorial there first.")
    for picture in pictures:
        shutil.copy(picture, TUTORIALS)
    (page,) = TUTORIALS.glob(f"{pictures[0].name[:2]}_*.md")
    results = (work / "results.txt").read_text(encoding="utf-8")
    page.write_text(BLOCK.sub(lambda _: results, page.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{page.name}: results and {len(pictures)} pictures")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        take_over(Path(argument))
    manual_html.main()
