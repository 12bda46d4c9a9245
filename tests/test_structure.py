"""The size of the house: how many modules there are, where, how long they and their functions are.

`python tests/test_structure.py` prints the table, what is over a limit, and the imports inside functions.
"""

import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "grounded_seg"

MOST_AT_THE_TOP = 5
MOST_MODULES = 280
MOST_LINES = 43_500
MOST_IN_A_FOLDER = 14
MEDIAN_LINES = range(90, 201)
MOST_LINES_OF_A_MODULE = 300
MOST_LINES_OF_A_FUNCTION = 60

SAME_NAMES = {
    "ask": "a command, and what it asks the detector",
    "coco": "export's format, and training's reader of it",
    "data_set": "a COCO file, and a training's data set",
    "export": "a command, and the export it starts",
    "files": "any file, and those of weights",
    "folder": "of a run, and of a training",
    "load": "of the detector, of the segmenter, of both as one",
    "questions": "of a training, and those about rendered scenes",
    "records": "the package's, and a training's",
    "run": "a command, and the run it starts",
    "settings": "of the package, of an export, of a training, of a server",
    "shapes": "those that are checked, and those that are rendered",
    "status": "a command, and what it shows",
    "validate": "a command, and the check it starts",
    "yolo": "export's format, and training's reader of it",
}
"""Modules that may share a name, as they are the same thing of two subjects."""


@dataclass(frozen=True)
class Module:
    """A module that isn't an `__init__.py`."""

    path: Path
    n_lines: int

    @property
    def name(self) -> str:
        return self.path.relative_to(PACKAGE).as_posix()


@cache
def modules() -> tuple[Module, ...]:
    return tuple(
        Module(path, len(path.read_text(encoding="utf-8").splitlines()))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "__init__.py"
    )


def n_lines() -> int:
    """Lines of all files, the `__init__.py` too."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py"))


def in_folders() -> Counter[str]:
    """Modules directly in each folder; "." is the package's top."""
    return Counter(one.path.parent.relative_to(PACKAGE).as_posix() for one in modules())


def functions() -> Iterator[tuple[str, int]]:
    """Every function, nested ones and methods too, with its lines from `def` to the last."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}"
                yield where, (node.end_lineno or node.lineno) - node.lineno + 1


def shared_names() -> dict[str, list[str]]:
    """Names that several modules have."""
    found: dict[str, list[str]] = {}
    for one in modules():
        found.setdefault(one.path.stem, []).append(one.name)
    return {name: where for name, where in found.items() if len(where) > 1}


def lazy_imports() -> list[tuple[str, str]]:
    """Imports inside functions: the module, and what it imports."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for node in ast.walk(function):
                name = path.relative_to(PACKAGE).as_posix()
                if isinstance(node, ast.Import):
                    found.update((name, alias.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    found.add((name, str(node.module)))
    return sorted(found)


def table() -> str:
    """The figures beside their limits."""
    lengths = [one.n_lines for one in modules()]
    folder, n_there = max(in_folders().items(), key=lambda item: item[1])
    rows = (
        ("modules at the top", in_folders()["."], f"at most {MOST_AT_THE_TOP}"),
        ("modules", len(lengths), f"at most {MOST_MODULES}"),
        ("lines", n_lines(), f"at most {MOST_LINES}"),
        (f"modules in the fullest folder ({folder})", n_there, f"at most {MOST_IN_A_FOLDER}"),
        ("lines of the median module", int(statistics.median(lengths)), f"{MEDIAN_LINES[0]} to {MEDIAN_LINES[-1]}"),
        ("lines of the longest module", max(lengths), f"at most {MOST_LINES_OF_A_MODULE}"),
        (
            "lines of the longest function",
            max(length for _, length in functions()),
            f"at most {MOST_LINES_OF_A_FUNCTION}",
        ),
        ("names of several modules", len(shared_names()), f"{len(SAME_NAMES)} with a reason"),
        ("modules under 60 lines", sum(length < 60 for length in lengths), ""),
        ("imports inside functions", len(lazy_imports()), ""),
    )
    return "\n".join(
        ["| | found | limit |", "|---|---:|---|", *(f"| {what} | {n} | {limit} |" for what, n, limit in rows)]
    )


def test_few_modules_are_at_the_top() -> None:
    assert in_folders()["."] <= MOST_AT_THE_TOP


def test_there_are_not_too_many_modules() -> None:
    assert len(modules()) <= MOST_MODULES


def test_there_are_not_too_many_lines() -> None:
    assert n_lines() <= MOST_LINES


def test_a_folder_can_be_seen_at_once() -> None:
    assert {folder: n for folder, n in in_folders().items() if n > MOST_IN_A_FOLDER} == {}


def test_a_module_is_neither_a_scrap_nor_a_book() -> None:
    assert int(statistics.median(one.n_lines for one in modules())) in MEDIAN_LINES
    assert {one.name: one.n_lines for one in modules() if one.n_lines > MOST_LINES_OF_A_MODULE} == {}


def test_a_function_fits_on_a_screen() -> None:
    assert {where: n for where, n in functions() if n > MOST_LINES_OF_A_FUNCTION} == {}


def test_a_name_is_one_thing() -> None:
    assert {name: where for name, where in shared_names().items() if name not in SAME_NAMES} == {}
    assert SAME_NAMES.keys() - shared_names().keys() == set()


if __name__ == "__main__":
    print(table())
    print(*(f"{where}: {n} lines" for where, n in functions() if n > MOST_LINES_OF_A_FUNCTION), sep="\n")
    print(*(f"{one.name}: {one.n_lines} lines" for one in modules() if one.n_lines > MOST_LINES_OF_A_MODULE), sep="\n")
    print(*(f"{name}: {', '.join(where)}" for name, where in shared_names().items()), sep="\n")
    print(*(f"{module} -> {imported}" for module, imported in lazy_imports()), sep="\n")
