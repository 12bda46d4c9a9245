"""The layers of the design, kept true by walking every import of the package."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "grounded_seg"

# From the bottom up. Parts of one layer don't import each other, unless SIBLINGS_ALLOWED names the pair.
LAYERS = (
    {"errors", "records"},
    {"settings", "export_settings"},
    {"boxes", "masks", "polygons", "labels", "images", "inputs", "reading", "runtime", "compiled"},
    {"weights", "scenes"},
    {"detect", "segment", "coco", "formats", "overlay"},
    {"loading", "answers"},
    {"tiling"},
    {"results"},
    {"pipeline"},
    {"run_folder", "writing"},
    {"journal", "manifest", "pictures"},
    {"tally", "asking"},
    {"resume"},
    {"batch", "merge", "export", "evaluation"},
    {"train"},
    {"cli"},
)
# (importing part, imported part), each a step sideways that stays acyclic.
SIBLINGS_ALLOWED = {("masks", "boxes"), ("polygons", "masks"), ("inputs", "images")}
# Training stands high enough to import nearly all of the package; this is what it needs, and `coco` by its modules.
TRAIN_IMPORTS = {
    *("errors", "records", "settings", "boxes", "masks", "images", "inputs", "runtime", "run_folder", "weights"),
    *("detect", "evaluation", "overlay"),
    *(f"coco.{name}" for name in ("dataset", "dataset_reader", "json_file", "metrics", "predictions", "schema")),
    "coco.scores",
}
# Above everything: the public names, loaded on first use.
PACKAGE_ROOT = "__init__"

HOMES = {
    "torch": {"compiled", "runtime", "detect", "segment", "train"},
    "torchvision": {"detect", "segment", "train"},
    "transformers": {"detect", "segment", "train", "weights"},
    "peft": {"detect", "train"},
    "segment_anything": {"segment"},
    "huggingface_hub": {"weights"},
    "pycocotools": {"masks", "coco"},
    "scipy": {"coco"},
    "matplotlib": {"coco", "train"},
    "pytorch_optimizer": {"train"},
    "ijson": {"coco"},
    "supervision": {"formats", "results"},
    "click": {"cli"},
    "rich": {"cli"},
}

LIGHT_MODULES = (
    "grounded_seg",
    "grounded_seg.boxes",
    "grounded_seg.coco",
    "grounded_seg.detect.location_tokens",
    "grounded_seg.detect.parse",
    "grounded_seg.detect.prompts",
    "grounded_seg.export",
    "grounded_seg.pipeline",
    "grounded_seg.batch",
    "grounded_seg.evaluation.evaluate",
    "grounded_seg.cli",
)


@dataclass(frozen=True)
class Import:
    """One import statement: who imports what."""

    part: str
    """The part that holds the statement: `detect`, `boxes`, ..."""
    target: str
    """The absolute dotted name."""
    where: str


def imports_of(package: Path) -> Iterator[Import]:
    """Every import of the package, those within functions and for type checking too."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        part = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{inside}:{node.lineno} imports relatively"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from (Import(part, target, f"{inside}:{node.lineno}") for target in targets)


def layer_of(part: str) -> int:
    [layer] = [number for number, parts in enumerate(LAYERS) if part in parts]
    return layer


def layer_violations(package: Path) -> list[str]:
    found = []
    for item in imports_of(package):
        names = item.target.split(".")
        if names[0] != "grounded_seg" or item.part == PACKAGE_ROOT:
            continue
        target = names[1]
        if item.part == target or (item.part, target) in SIBLINGS_ALLOWED:
            continue
        if target.startswith("__"):
            # The package's own attributes, such as its version, cost no layer.
            continue
        if layer_of(target) >= layer_of(item.part):
            found.append(f"{item.where}: {item.part} imports {target}")
    return found


def home_violations(package: Path) -> list[str]:
    return [
        f"{item.where}: {library} in {item.part}"
        for item in imports_of(package)
        for library in [item.target.split(".")[0]]
        if library in HOMES and item.part not in HOMES[library]
    ]


def test_every_part_has_a_layer() -> None:
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {PACKAGE_ROOT, "__pycache__"} <= set().union(*LAYERS)


def test_lower_layers_never_import_upper_ones() -> None:
    assert layer_violations(PACKAGE) == []


def train_imports(package: Path) -> set[str]:
    """What training imports: parts of the package, and the modules of `coco`."""
    names = [item.target.split(".") for item in imports_of(package) if item.part == "train"]
    own = [name for name in names if name[0] == "grounded_seg" and name[1] != "train"]
    return {".".join(name[1:3]) if name[1] == "coco" else name[1] for name in own}


def test_training_imports_what_it_needs_and_no_more() -> None:
    assert train_imports(PACKAGE) == TRAIN_IMPORTS


def test_third_party_libraries_stay_in_their_homes() -> None:
    assert home_violations(PACKAGE) == []


@pytest.mark.parametrize("light", LIGHT_MODULES)
def test_light_modules_import_without_the_heavy_libraries(light: str) -> None:
    # None in sys.modules makes any import of that name fail.
    program = (
        "import sys\n"
        "for heavy in ('torch', 'torchvision', 'transformers', 'peft', 'segment_anything'):\n"
        "    sys.modules[heavy] = None\n"
        f"import {light}\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PACKAGE.parent, check=True)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("records.py", "from grounded_seg import pipeline", "records.py:1: records imports pipeline"),
        ("boxes.py", "from grounded_seg.settings import RunSettings\nimport grounded_seg.cli", "boxes imports cli"),
        ("detect/parse.py", "from grounded_seg.segment.sam import load_sam", "detect imports segment"),
        ("coco/export.py", "def late():\n    from grounded_seg.detect import parse", "coco imports detect"),
        ("batch.py", "def late():\n    import grounded_seg.train", "batch imports train"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(text)
    [found] = layer_violations(tmp_path)
    assert complaint in found


def test_a_planted_import_of_training_is_found(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "loss.py").write_text(
        "import torch\nfrom grounded_seg.train import lora\nfrom grounded_seg import segment\n"
        "def late():\n    from grounded_seg.coco.export import document\n"
    )
    assert train_imports(tmp_path) == {"segment", "coco.export"}


def test_a_planted_library_away_from_home_is_found(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text("from torch import nn")
    (tmp_path / "cli.py").write_text("import click")
    assert home_violations(tmp_path) == ["boxes.py:1: torch in boxes"]
