"""The layers of the design, kept true by walking every import of the package."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from paths import ROOT

PACKAGE = ROOT / "grounded_seg"

# From the top down: each folder or module imports only from lines below its own.
LAYERS = (
    {"cli"},
    {"api"},
    {"serve"},
    {"train"},
    {"evaluation", "export", "diagnosis"},
    {"review"},
    {"runs"},
    {"engine"},
    {"pipeline"},
    {"detect", "segment"},
    {"scoring"},
    {"coco"},
    {"images", "weights", "device", "scenes", "web"},
    {"records"},
    {"geometry"},
    {"settings", "files"},
    {"setting_types", "text"},
    {"errors"},
)

HOMES = {
    "torch": {"device", "weights", "detect", "segment", "train"},
    "torchvision": {"detect", "segment", "train"},
    "transformers": {"detect", "segment", "train", "weights"},
    "peft": {"detect", "train"},
    "segment_anything": {"segment"},
    "huggingface_hub": {"weights"},
    "pycocotools": {"geometry"},
    "scipy": {"scoring"},
    "matplotlib": {"scoring", "train"},
    "pytorch_optimizer": {"train"},
    "accelerate": {"train"},
    "rapidfuzz": {"train"},
    "regex": {"detect"},
    "ijson": {"coco"},
    "fsspec": {"images"},
    "pillow_heif": {"images"},
    "supervision": {"pipeline"},
    "pandas": {"pipeline"},
    "ray": {"engine"},
    "pyarrow": {"coco", "images"},
    "msgspec": {"setting_types", "review", "serve", "weights", "detect", "segment"},
    "starlette": {"web", "serve", "review"},
    "uvicorn": {"web"},
    "cvat_sdk": {"serve"},
    "click": {"cli"},
    "rich": {"cli"},
}

LAZY = {
    "detect.__init__": "the same, for the names that need torch",
    "train.__init__": "the same",
    "cli.commands": "numpy, rich and torch would slow --help down",
    "cli.messages": "the same",
    "cli.exit_codes": "slips are looked up where a command line is wrong",
    "engine.batch_worker": "torch takes seconds, and the process that starts workers needs none of it",
    "engine.processes": "the same",
    "engine.proofs": "the hub's library takes time, and the process that starts workers needs none of it",
    "engine.ray_actors": "Ray is optional and slow to load; torch takes seconds",
    "engine.keywords": "names are compared where one is wrong",
    "cli.options": "the same",
    "cli.slips": "the same",
    "detect.configs.adapter_fields": "peft takes a second; most adapters are plain, and merged without it",
    "detect.model.adapters": "peft takes a second; most adapters are plain, and merged without it",
    "coco.parquet": "pyarrow is optional",
    "device.choose": "torch's compiler takes a second, and few runs compile",
    "device.memory": "torch takes seconds; what runs out of memory has loaded it already",
    "diagnosis.installation": "a library that can't be imported is what is looked for",
    "geometry.outlines": "the wheel of OpenCV needs a library of the system that bare machines lack",
    "images.colours": "few images have a colour profile that needs its library",
    "images.parquet_list": "pyarrow is optional, and few lists are Parquet",
    "images.remote.keys": "the libraries of storage are optional, and few runs need them",
    "images.remote.storage": "the same",
    "images.formats": "few runs read HEIC or AVIF, whose libraries are slow to load",
    "pipeline.load": "torch takes seconds: a wrong option is told before",
    "pipeline.result": "a record imports the forms that it can be had in only when one is asked for",
    "pipeline.forms": "supervision and pandas are optional",
    "scoring.plots": "matplotlib is optional",
    "segment.load": "transformers takes seconds, and Segment Anything needs none of it",
    "train.fit.metrics_log": "matplotlib is optional",
    "train.fit.trainable": "pytorch-optimizer is optional",
    "train.recipes": "yaml is read only where a file of settings is given",
    "serve.cvat_function": "CVAT's library is there only where its command line runs this",
    "web.launch": "uvicorn is optional, and a taken port is told without it",
    "weights.strict_loading": "transformers takes seconds",
}
"""Modules, and folders of them, that import inside functions, and why."""

LIGHT_MODULES = (
    "grounded_seg",
    "grounded_seg.geometry.boxes",
    "grounded_seg.coco",
    "grounded_seg.detect.answer.tokens",
    "grounded_seg.detect.answer.parse",
    "grounded_seg.detect.prompts",
    "grounded_seg.export.export",
    "grounded_seg.pipeline.chain",
    "grounded_seg.runs.run",
    "grounded_seg.evaluation.evaluate",
    "grounded_seg.api.commands",
    "grounded_seg.engine.grounded_segmenter",
    "grounded_seg.cli",
)


@dataclass(frozen=True)
class Import:
    """One imported name."""

    module: str
    """The module with the statement, dotted, below the package: `detect.answer.parse`."""
    target: str
    """The absolute dotted name."""
    where: str

    @property
    def part(self) -> str:
        return self.module.split(".")[0]


def imports_of(package: Path) -> Iterator[Import]:
    """Every import of the package, those within functions and for type checking too; but of no `__init__.py`."""
    for path in sorted(package.rglob("*.py")):
        if path.name == "__init__.py":
            continue
        inside = path.relative_to(package)
        module = inside.with_suffix("").as_posix().replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{inside}:{node.lineno} imports relatively"
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from (Import(module, target, f"{inside}:{node.lineno}") for target in targets)


def layer_of(part: str) -> int:
    """The line of a part in the list, counted from the bottom."""
    [layer] = [number for number, parts in enumerate(reversed(LAYERS)) if part in parts]
    return layer


def layer_violations(package: Path) -> list[str]:
    found = []
    for item in imports_of(package):
        names = item.target.split(".")
        # The package's own attributes, such as its version, cost no layer.
        if names[0] != "grounded_seg" or names[1] == item.part or names[1].startswith("__"):
            continue
        if layer_of(names[1]) >= layer_of(item.part):
            found.append(f"{item.where}: {item.part} imports {names[1]}")
    return found


def home_violations(package: Path) -> list[str]:
    return [
        f"{item.where}: {library} in {item.part}"
        for item in imports_of(package)
        for library in [item.target.split(".")[0]]
        if library in HOMES and item.part not in HOMES[library]
    ]


def module_cycle(package: Path) -> list[str]:
    """Modules that import each other in a circle; empty where there is none."""
    modules = {path.relative_to(package).with_suffix("").as_posix().replace("/", ".") for path in package.rglob("*.py")}
    imported: dict[str, set[str]] = {}
    for item in imports_of(package):
        name = item.target.removeprefix("grounded_seg.")
        target = next((one for one in (name, name.rpartition(".")[0]) if one in modules), None)
        if target is not None and item.target.startswith("grounded_seg."):
            imported.setdefault(item.module, set()).add(target)
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def lazy_modules(package: Path) -> set[str]:
    """Modules with imports inside functions."""
    found = set()
    for path in package.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)
            ):
                found.add(path.relative_to(package).with_suffix("").as_posix().replace("/", "."))
    return found


def chain_violations(package: Path) -> list[str]:
    """Imports of the chain of both stages beside the engine's."""
    chain = "grounded_seg.pipeline.chain"
    imports = (item for item in imports_of(package) if f"{item.target}.".startswith(f"{chain}."))
    return [item.where for item in imports if item.part not in ("engine", "pipeline")]


def test_every_part_has_a_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert parts - {"__init__", "__pycache__"} <= set().union(*LAYERS)


def test_lower_layers_never_import_upper_ones() -> None:
    assert layer_violations(PACKAGE) == []


def test_no_modules_import_each_other() -> None:
    assert module_cycle(PACKAGE) == []


def test_third_party_libraries_stay_in_their_homes() -> None:
    assert home_violations(PACKAGE) == []


def test_only_the_engine_sends_images_through_the_chain() -> None:
    assert chain_violations(PACKAGE) == []


def test_imports_inside_functions_have_a_reason() -> None:
    lazy = lazy_modules(PACKAGE)
    reasons = {name: next((key for key in (name, name.rpartition(".")[0]) if key in LAZY), None) for name in lazy}
    assert [name for name, reason in reasons.items() if reason is None] == []
    assert LAZY.keys() - set(reasons.values()) == set()


def test_no_module_is_named_like_a_public_name_of_its_package() -> None:
    n_compared = 0
    for init in PACKAGE.rglob("__init__.py"):
        name = ".".join(("grounded_seg", *init.parent.relative_to(PACKAGE).parts))
        public = set(getattr(importlib.import_module(name), "__all__", ()))
        assert public & {path.stem for path in init.parent.iterdir()} == set(), name
        n_compared += len(public)
    assert n_compared > 10


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
        ("geometry/boxes.py", "from grounded_seg.cli.options import x", "geometry imports cli"),
        ("detect/parse.py", "from grounded_seg.segment.sam import load_sam", "detect imports segment"),
        ("coco/write.py", "def late():\n    from grounded_seg.detect import parse", "coco imports detect"),
        ("runs/run.py", "def late():\n    import grounded_seg.train", "runs imports train"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(text)
    [found] = layer_violations(tmp_path)
    assert complaint in found


def test_a_planted_use_of_the_chain_is_found(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.py").write_text("def late():\n    from grounded_seg.pipeline.chain import Chain")
    assert chain_violations(tmp_path) == ["runs/run.py:2"]
    assert lazy_modules(tmp_path) == {"runs.run"}


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "one.py").write_text("from grounded_seg.coco.two import a")
    (tmp_path / "coco" / "two.py").write_text("from grounded_seg.coco import one")
    assert set(module_cycle(tmp_path)) == {"coco.one", "coco.two"}


def test_a_planted_library_away_from_home_is_found(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text("from torch import nn")
    (tmp_path / "cli.py").write_text("import click")
    assert home_violations(tmp_path) == ["boxes.py:1: torch in boxes"]
