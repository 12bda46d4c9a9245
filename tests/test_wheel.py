"""A wheel holds all that the demo takes: it finds in another folder what the checkout finds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

EXAMPLE = ROOT / "examples" / "scene-1.jpg"


def run(*command: str | Path, folder: Path, path: Path | None = None) -> str:
    """What a command prints, run in a folder with nothing but `path` to import from."""
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        surroundings["PYTHONPATH"] = str(path)
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def found_by(package: Path, folder: Path) -> tuple[str, list[Any]]:
    """Where a package lies and what its demo finds, run in this folder."""
    folder.mkdir()
    where = run(sys.executable, "-c", "import grounded_seg; print(grounded_seg.__file__)", folder=folder, path=package)
    options = ("--preset", "demo", "--device", "cpu", "--dtype", "float32", "-o", folder / "out")
    run(sys.executable, "-m", "grounded_seg.cli", "run", "red car", EXAMPLE, *options, folder=folder, path=package)
    return where, json.loads((folder / "out" / "annotations.json").read_text(encoding="utf-8"))["annotations"]


@pytest.mark.release
def test_the_demo_runs_from_a_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, isn't installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path / "dist", ROOT, folder=tmp_path)
    [wheel] = (tmp_path / "dist").glob("grounded_seg-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel, folder=tmp_path)
    where, found = found_by(tmp_path / "site", tmp_path / "elsewhere")
    assert where.startswith(str(tmp_path / "site"))
    assert not (tmp_path / "site" / "tests").exists()
    # Without it, no type checker looks at the package's types.
    assert (tmp_path / "site" / "grounded_seg" / "py.typed").exists()
    # What the browser gets is no Python.
    page = Path("grounded_seg", "review", "page", "static")
    assert sorted(path.name for path in (tmp_path / "site" / page).iterdir()) == sorted(
        path.name for path in (ROOT / page).iterdir()
    )
    here, expected = found_by(ROOT, tmp_path / "checkout")
    assert here.startswith(str(ROOT))
    assert found
    assert found == expected
    # The known answer's image comes with the wheel.
    doctor = ("doctor", "--device", "cpu", "--dtype", "float32")
    told = run(sys.executable, "-m", "grounded_seg.cli", *doctor, folder=tmp_path / "elsewhere", path=tmp_path / "site")
    assert "known answer: the demo finds what it should" in told
