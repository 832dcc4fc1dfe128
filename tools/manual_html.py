#!/usr/bin/env python3
"""Write NAME.html from NAME.md for the suite and its tools: ``make manuals``.

GRASS before 8.5 builds manuals from HTML, newer GRASS prefers Markdown, and an add-on with only one of them does not
build everywhere. The Markdown is written by hand; the HTML is a fragment without header, as GRASS's build wants it.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANUALS = (
    ROOT / "r.learn.deep.md",
    ROOT / "v.sample.patches" / "v.sample.patches.md",
    ROOT / "r.learn.deep.train" / "r.learn.deep.train.md",
    ROOT / "r.learn.deep.predict" / "r.learn.deep.predict.md",
    ROOT / "r.learn.deep.evaluate" / "r.learn.deep.evaluate.md",
)


def to_html(text: str) -> str:
    """The HTML fragment of a manual in Markdown.

    Links to manuals lead to their HTML pages, and code blocks look as in GRASS's own manuals.
    """
    import markdown

    html = markdown.markdown(text, extensions=["tables", "fenced_code", "sane_lists"], output_format="html")
    html = re.sub(r'(<a href="(?!https?:)[^"#]+)\.md([#"])', r"\1.html\2", html)
    html = re.sub(r"<pre><code[^>]*>", '<div class="code"><pre>\n', html)
    return html.replace("</code></pre>", "</pre></div>") + "\n"


def main() -> None:
    """Write the page of every manual that there is."""
    for manual in MANUALS:
        if manual.is_file():
            manual.with_suffix(".html").write_text(to_html(manual.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
