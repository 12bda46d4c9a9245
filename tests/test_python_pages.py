"""The Python blocks of README and of the API page: they run, mypy --strict takes them, and the page lists every name.

`python tests/test_python_pages.py` prints the list as it stands at the end of the page.
"""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from script_cases import run_script

import grounded_seg
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.pipeline.result import PromptedResult

PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/python.md")}
MORE_PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("docs/detector.md", "docs/segmenter.md", "docs/train.md")
}
"""Pages with a block or two, for those who know the first ones."""
SHORTER = {
    'dataset=Path("data"), output=Path("tuned"), models=ModelSettings("demo"), epochs=3,': (
        'dataset=Path("scenes/instances.json"), output=Path("tuned"), max_steps=1, image_size=64, report=False, '
        'models=ModelSettings("demo", device="cpu", dtype="float32"), '
    )
}
"""What is put in place of an example of a training."""
SAME_ANYWHERE = 'device="cpu", dtype="float32", '
OPTIONAL = {"to_pandas": "pandas", "to_supervision": "supervision"}
"""What a block may need beside what this package installs."""
WITHOUT_DOCSTRING = {"ImageLike": "An image in any of the forms above; a type.", "__version__": "The version."}

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def blocks(page: str) -> list[str]:
    """The Python blocks of a page, which one reader runs one after the other; always in one dtype."""
    text = {**PAGES, **MORE_PAGES}[page]
    found: list[str] = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    found = [one.replace('from_preset("demo", ', f'from_preset("demo", {SAME_ANYWHERE}') for one in found]
    return [one.replace('preset="demo", ', f'preset="demo", {SAME_ANYWHERE}') for one in found]


def list_of_names() -> str:
    """The table of all public names, each with the first line of its docstring."""
    rows = []
    for name in grounded_seg.__all__:
        text = WITHOUT_DOCSTRING.get(name) or inspect.getdoc(getattr(grounded_seg, name)) or ""
        rows.append(f"| `{name}` | {text.partition(chr(10))[0].replace('|', 'or')} |")
    return "\n".join(["| name | what it is or does |", "|---|---|", *rows]) + "\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader tries the blocks: with the examples, and a rendered data set."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    assert run_script("benchmarks/render_dataset.py", "scenes", "--scenes", "4") == 0
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", pytest.param("docs/python.md", marks=pytest.mark.slow)])
def test_the_blocks_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A dataclass looks its module up.
    names: dict[str, Any] = {"__name__": "reader"}
    found = blocks(page)
    assert found
    for number, block in enumerate(found):
        needed = {library for method, library in OPTIONAL.items() if method in block}
        for line in block.splitlines() if needed else []:
            method = next(one for one in OPTIONAL if one in line)
            try:
                __import__(OPTIONAL[method])
            except ImportError:
                continue
            exec(line, names)  # noqa: S102  (the page's own code)
        if not needed:
            exec(compile(block, f"{page}, block {number}", "exec"), names)  # noqa: S102
    assert len(names["result"]) > 0


@pytest.mark.release
def test_the_blocks_of_other_pages_run(folder: Path) -> None:
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    for page in MORE_PAGES:
        names: dict[str, Any] = {"__name__": "reader"}
        for number, block in enumerate(blocks(page)):
            for long, short in SHORTER.items():
                block = block.replace(long, short)
            exec(compile(block, f"{page}, block {number}", "exec"), names)  # noqa: S102
        assert {"found", "segmented", "report"} & names.keys(), page


@pytest.mark.release
def test_mypy_strict_takes_the_blocks(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    scripts = [tmp_path / "readme.py", tmp_path / "page.py"]
    for script, page in zip(scripts, PAGES, strict=True):
        script.write_text("\n".join(blocks(page)), encoding="utf-8")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(blocks("README.md")[0] + "\nresult.scorse\nsegmenter(3, 4)\n", encoding="utf-8")
    # In the checkout, whose cache saves most of the minutes that torch takes.
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, (*scripts, wrong))]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line for line in checked.stdout.splitlines() if ": error:" in line]
    assert all("wrong.py" in line for line in found), checked.stdout
    assert {line.rpartition("[")[2] for line in found} == {"attr-defined]", "arg-type]"}


def test_every_public_name_is_there() -> None:
    assert sorted(grounded_seg.__all__) == grounded_seg.__all__
    for name in grounded_seg.__all__:
        assert getattr(grounded_seg, name) is not None
    assert set(grounded_seg.__all__) <= set(dir(grounded_seg))
    with pytest.raises(AttributeError, match="segmentation"):
        grounded_seg.segmentation  # noqa: B018


def test_the_page_lists_every_public_name() -> None:
    assert PAGES["docs/python.md"].endswith(f"## Everything\n\n{list_of_names()}")


@pytest.mark.parametrize("kind", [GroundedSegmenter, PromptedResult])
def test_the_page_names_every_method(kind: type) -> None:
    public = [name for name in dir(kind) if not name.startswith("_")]
    assert [name for name in public if name not in PAGES["docs/python.md"] and name not in ("of",)] == []


def test_the_page_uses_every_function() -> None:
    code = "\n".join(blocks("docs/python.md"))
    functions = [name for name in grounded_seg.__all__ if inspect.isfunction(getattr(grounded_seg, name))]
    assert [name for name in functions if f"grounded_seg.{name}(" not in code] == []


def test_types_come_with_the_package() -> None:
    assert (ROOT / "grounded_seg" / "py.typed").exists()


if __name__ == "__main__":
    print(list_of_names(), end="")
