"""The files of the page, and the page as files that need no server."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grounded_seg.files import as_output_error

FOLDER = Path(__file__).parent / "static"
SCRIPTS = ("masks.js", "paint.js", "source.js", "filters.js", "grid.js", "stage.js", "viewer.js", "main.js")
"""In the order in which they are run."""
STYLES = ("view.css", "icon.svg")
DATA_NAME = "data.js"

_REFERENCE = re.compile(r'(href|src)="(?=[\w.]+\.(css|svg|js)")')
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'self' file:; "
    "style-src 'self' file:; img-src 'self' file: blob: data:; base-uri 'none'; form-action 'none'\">"
)


def write_static_page(
    page: Path, parts: str, run: Mapping[str, Any], items: Sequence[Mapping[str, Any]], text: str
) -> None:
    """Write the page of `view` so that a browser opens it from the disk: to look at, not to decide.

    Args:
        page: The file, whose folder is made where it is missing.
        parts: Folder beside it for scripts, style and data; pictures that `items` name are its caller's to write.
        run: What the page is told about a run, see `ViewedRun.summary`.
        items: One for each image, see `items.item_of`, with `picture`, where its picture is from the page.
        text: HTML for browsers that run no script; what comes from elsewhere is escaped already.

    Raises:
        OutputError: If it can't be written.
    """
    folder = page.parent / parts
    with as_output_error():
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*STYLES, *SCRIPTS):
            (folder / name).write_bytes((FOLDER / name).read_bytes())
        # In ASCII, as names can hold half characters; what would end a script has no place in one that is a file.
        data = json.dumps({"run": run, "items": items}, allow_nan=False)
        (folder / DATA_NAME).write_text(f"window.GROUNDED_SEG_WRITTEN = {data};\n", encoding="ascii")
        html = (FOLDER / "index.html").read_text(encoding="utf-8")
        html = _REFERENCE.sub(rf'\1="{parts}/', html)
        html = html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{_POLICY}', 1)
        html = html.replace(
            f'<script src="{parts}/{SCRIPTS[0]}"',
            f'<script src="{parts}/{DATA_NAME}" defer></script>\n<script src="{parts}/{SCRIPTS[0]}"',
            1,
        )
        html = html.replace("</main>", f"</main>\n<noscript>\n{text}</noscript>", 1)
        # File names of a data set can hold what isn't text, as a disk from elsewhere has them.
        page.write_text(html, encoding="utf-8", errors="backslashreplace")
