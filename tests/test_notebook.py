"""The notebook of examples/ runs, and gives what it shows.

`python tests/test_notebook.py --write` runs it and keeps its results in the file.
"""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"
MOST_BYTES = 200_000


def executed(path: Path = NOTEBOOK) -> Any:
    """The notebook with the results of its cells, run beside the examples by a kernel of this Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nbclient
        import nbformat

        notebook = nbformat.read(path, as_version=4)
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
        ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            # What other libraries say of their own surroundings, such as a missing progress bar.
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def told(notebook: Any) -> list[str]:
    """What each cell prints or shows as text, numbers aside."""
    texts = []
    for cell in notebook.cells:
        shown = (one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.get("outputs", ()))
        texts.append(re.sub(r"\d+(\.\d+)?", "#", "".join(shown)))
    return texts


@pytest.mark.release
def test_the_notebook_runs_and_shows_what_it_holds() -> None:
    pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, isn't installed")
    import nbformat

    held, now = nbformat.read(NOTEBOOK, as_version=4), executed()
    assert told(now) == told(held)
    outputs = [one for cell in now.cells for one in cell.get("outputs", ())]
    pages = [one["data"].get("text/html", "") for one in outputs if "data" in one]
    assert any("data:image/jpeg;base64," in page and "<table" in page for page in pages)


def test_the_notebook_is_small_and_was_run() -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert '"output_type": "error"' not in NOTEBOOK.read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in NOTEBOOK.read_text(encoding="utf-8")
    assert "site-packages" not in NOTEBOOK.read_text(encoding="utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv:
        import nbformat

        nbformat.write(executed(), NOTEBOOK)
