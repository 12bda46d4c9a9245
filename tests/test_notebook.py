"""The notebook of examples/ runs, and its results show themselves. The file holds none: they are of the machine."""

import json
import warnings
from typing import Any

import pytest
from paths import ROOT

NOTEBOOK = ROOT / "examples" / "first_steps.ipynb"
SHOWN = (
    "GroundedSegmenter(detector='demo/detector'",
    "PromptedResult('scene-1.jpg', 640 x 480 px, 2 prompts)",
    "(0, False)",
    "red car: score 0.9",
    "((1, 4), (1, 480, 640))",
    "scene-3.jpg ball car",
    "['scene-1.jpg', 'scene-1.json']",
    "dict_keys(['id', 'image_id', 'category_id'",
)
"""The start of what the cells with code show as text, in their order."""


@pytest.mark.release
def test_the_notebook_runs_and_its_results_show_themselves() -> None:
    pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, isn't installed")
    cells = [cell for cell in executed().cells if cell.cell_type == "code"]
    outputs = [[one for one in cell.outputs if one.get("name") != "stderr"] for cell in cells]
    texts = [
        "".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in shown) for shown in outputs
    ]
    for text, start in zip(texts, SHOWN, strict=True):
        assert start in text
    pages = [one["data"].get("text/html", "") for shown in outputs for one in shown if "data" in one]
    assert any('<img src="data:image/jpeg;base64,' in page and "<table>" in page for page in pages)


def executed() -> Any:
    """The notebook with the results of its cells, run beside the examples by a kernel of this Python."""
    with warnings.catch_warnings():
        # Of the kernel's libraries about each other.
        warnings.simplefilter("ignore")
        import nbclient
        import nbformat

        notebook = nbformat.read(NOTEBOOK, as_version=4)
        beside = {"metadata": {"path": str(NOTEBOOK.parent)}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=beside).execute()
    return notebook


def test_the_notebook_holds_no_results() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) > 10
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
