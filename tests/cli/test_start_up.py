"""What a start imports: help and refusals no heavy library, a run only what it uses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from paths import ROOT

from grounded_seg.cli import main

HEAVY = ("torch", "torchvision", "transformers", "peft", "segment_anything")
DEMO = ROOT / "checkpoints" / "demo"
DETECTOR, ADAPTER, SEGMENTER = (str(DEMO / part) for part in ("detector", "adapter", "segmenter"))
SCENE = str(ROOT / "examples" / "scene-1.jpg")
ASKED = ("red car", SCENE, "--preset", "demo", "-o", "out")
REFUSED: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "a path": (3, "missing.jpg", ("run", "red car", "missing.jpg", "--preset", "demo")),
    "no image": (3, "text.jpg", ("run", "red car", "text.jpg", "--preset", "demo")),
    "a preset": (2, "huge", ("run", "red car", SCENE, "--preset", "huge")),
    "a detector": (4, "./missing", ("run", *ASKED, "--detector", "./missing")),
    "an adapter": (4, "./missing", ("run", *ASKED, "--adapter", "./missing")),
    "a segmenter": (4, "missing.pth", ("run", *ASKED, "--segmenter", "missing.pth")),
    "a device": (2, "gpu", ("run", *ASKED, "--device", "gpu")),
    "a batch": (2, "--batch-size", ("run", *ASKED, "--batch-size", "0")),
    "ask, a task": (2, "NOTASK", ("ask", "NOTASK", SCENE)),
    "ask, an image": (3, "missing.jpg", ("ask", "OD", "missing.jpg")),
    "ask, a text": (2, "words", ("ask", "OCR", "words", SCENE)),
    "ask, a preset": (2, "huge", ("ask", "OD", SCENE, "--preset", "huge")),
    "ask, an adapter": (4, "./missing", ("ask", "OD", SCENE, "--adapter", "./missing")),
    "ask, a device": (2, "gpu", ("ask", "OD", SCENE, "--device", "gpu")),
    "eval, a file": (3, "missing.json", ("eval", "missing.json", "--images", ".", "--preset", "demo")),
    "eval, a preset": (2, "huge", ("eval", "missing.json", "--images", ".", "--preset", "huge")),
    "train, data": (3, "missing", ("train", "missing", "-o", "out", "--preset", "demo")),
    "train, data, without a step": (3, "missing", ("train", "missing", "-o", "out", "--preset", "demo", "--dry-run")),
    "train, a preset": (2, "huge", ("train", ".", "-o", "out", "--preset", "huge")),
    "train, a device": (2, "gpu", ("train", ".", "-o", "out", "--preset", "demo", "--device", "gpu")),
    "convert, native already": (2, "native layout", ("models", "convert", DETECTOR, "out")),
    "convert, a native adapter": (2, "native layout", ("models", "convert", ADAPTER, "out")),
    "convert, no model": (4, "config.json", ("models", "convert", "weights", "out")),
    "convert, a full folder": (2, "full", ("models", "convert", DETECTOR, "full")),
    "merge, a full folder": (2, "full", ("models", "merge", DETECTOR, ADAPTER, "full")),
    "merge, no base": (4, "./missing", ("models", "merge", "./missing", ADAPTER, "out")),
    "merge, another base": (
        4,
        "trained on",
        ("models", "merge", SEGMENTER, ADAPTER, "out"),
    ),
    "fetch": (2, "nothing", ("models", "fetch", "nothing")),
    "remove": (2, "demo", ("models", "remove", "demo")),
}
"""Commands that need no model to be refused, by what is wrong: exit code, a part of the message, words."""

# None in sys.modules makes any import of that name fail, which would be exit code 70.
PROGRAM = (
    "import json, sys\n"
    f"for heavy in {HEAVY}:\n"
    "    sys.modules[heavy] = None\n"
    "from click.testing import CliRunner\n"
    "from grounded_seg.cli import main\n"
    "done = [CliRunner().invoke(main, words) for words in json.load(sys.stdin)]\n"
    "print(json.dumps([(one.exit_code, one.stdout, one.stderr) for one in done]))\n"
)


def outcomes(cases: list[tuple[str, ...]], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of commands in a process without the heavy libraries."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "HF_HUB_OFFLINE": "1"},
    )
    found: list[tuple[int, str, str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, str]]:
    folder = tmp_path_factory.mktemp("refused")
    (folder / "text.jpg").write_text("no image")
    for name in ("full", "weights"):
        (folder / name).mkdir()
    (folder / "full" / "file").touch()
    (folder / "weights" / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return dict(zip(REFUSED, outcomes([words for _, _, words in REFUSED.values()], folder), strict=True))


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_needs_no_model_library(case: str, refusals: dict[str, tuple[int, str, str]]) -> None:
    code, part, _ = REFUSED[case]
    found, _, message = refusals[case]
    assert (found, part in message) == (code, True), message
    assert message.splitlines()[-1].startswith("error: ")


def all_commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, one in command.commands.items() if isinstance(command, click.Group) else ():
        yield from all_commands(one, (*words, name))


def test_the_help_of_every_command_needs_no_model_library(tmp_path: Path) -> None:
    words = list(all_commands(main))
    assert len(words) > 15
    found = outcomes([(*one, "--help") for one in words], tmp_path)
    assert {code for code, _, _ in found} == {0}
    assert all(text.startswith("Usage: ") for _, text, _ in found)


def test_the_help_alone_needs_no_numpy_either() -> None:
    program = (
        "import sys\n"
        f"for heavy in {(*HEAVY, 'numpy', 'rich', 'PIL', 'cv2', 'huggingface_hub')}:\n"
        "    sys.modules[heavy] = None\n"
        "from grounded_seg.cli import main\n"
        "main(['run', '--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("Usage: ")


def test_a_run_of_the_demo_imports_neither_peft_nor_torchvision(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for unused in ('peft', 'torchvision'):\n"
        "    sys.modules[unused] = None\n"
        "from grounded_seg.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    words = ("run", "red car", SCENE, "--preset", "demo", "--device", "cpu", "--dtype", "float32", "-o", str(tmp_path))
    subprocess.run([sys.executable, "-c", program, *words], check=True, cwd=ROOT)
    assert json.loads((tmp_path / "annotations.json").read_text())["annotations"]


def test_the_end_looks_for_no_garbage() -> None:
    # What was registered first runs last.
    program = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0))\n"
        "from grounded_seg.cli import main\n"
        "main(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "frozen True"
