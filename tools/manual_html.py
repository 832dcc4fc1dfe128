#!/usr/bin/env python3
"""Write NAME.html from NAME.md for the suite, its tools and the tutorials: ``make manuals``.

GRASS before 8.5 builds manuals from HTML, newer GRASS prefers Markdown, and an add-on with only one of them does not
build everywhere. The Markdown is written by hand; the HTML is a fragment without header, as GRASS's build wants it.
GRASS knows nothing of the tutorials, so their pages have a header of their own.
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
TUTORIALS = tuple(sorted((ROOT / "tutorials").glob("*.md")))


def to_html(text: str) -> str:
    """The HTML fragment of a manual in Markdown.

    Links to manuals lead to their HTML pages, and code blocks look as in GRASS's own manuals.
    """
    import markdown

    html = markdown.markdown(text, extensions=["tables", "fenced_code", "sane_lists"], output_format="html")
    html = re.sub(r'(<a href="(?!https?:)[^"#]+)\.md([#"])', r"\1.html\2", html)
    html = re.sub(r"<pre><code[^>]*>", '<div class="code"><pre>\n', html)
    return html.replace("</code></pre>", "</pre></div>") + "\n"


def to_page(text: str) -> str:
    """The whole HTML page of a tutorial in Markdown, which begins with its title."""
    title = text.partition("\n")[0].removeprefix("# ")
    head = f'<meta charset="utf-8">\n<title>{title}</title>\n<link rel="stylesheet" href="../grassdocs.css">'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{to_html(text)}</body>\n</html>\n'


def main() -> None:
    """Write the page of every manual and tutorial that there is."""
    for tutorial in TUTORIALS:
        tutorial.with_suffix(".html").write_text(to_page(tutorial.read_text(encoding="utf-8")), encoding="utf-8")
    for manual in MANUALS:
        if manual.is_file():
            manual.with_suffix(".html").write_text(to_html(manual.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
