"""The notebook of examples/ runs, and its results show themselves. The file holds none: they are of the machine."""

import json
import subprocess
import sys
from pathlib import Path
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
    "scene-3.jpg car ball",
    "['scene-1.jpg', 'scene-1.json']",
    "dict_keys(['id', 'image_id', 'category_id'",
)
"""The start of what the cells with code show as text, in their order."""


PROGRAM = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
beside = {"metadata": {"path": sys.argv[2]}}
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=beside).execute()
nbformat.write(notebook, sys.argv[3])
"""
"""In a process of its own: what the kernel's libraries warn of each other is no fault here."""


@pytest.mark.release
def test_the_notebook_runs_and_its_results_show_themselves(tmp_path: Path) -> None:
    pytest.importorskip("nbclient", reason="nbclient, which runs notebooks, isn't installed")
    command = [sys.executable, "-c", PROGRAM, str(NOTEBOOK), str(NOTEBOOK.parent), str(tmp_path / "run.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "run.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    for shown, expected in zip(outputs, SHOWN, strict=True):
        assert expected in "".join(text_of(one) for one in shown)
    pages = ["".join(one.get("data", {}).get("text/html", "")) for shown in outputs for one in shown]
    assert any('<img src="data:image/jpeg;base64,' in page and "<table>" in page for page in pages)


def text_of(output: dict[str, Any]) -> str:
    """What a cell prints, or shows where there is no browser."""
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))


def test_the_notebook_holds_no_results() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) > 10
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
