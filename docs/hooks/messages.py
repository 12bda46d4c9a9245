"""Fills the page of all messages from the program's own `raise` statements, while mkdocs builds the site."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2] / "grounded_seg"
MARK = "<!-- messages -->"
PAGE = "messages.md"

GROUPS = (
    (2, "wrong usage", "Correct the command as the message says; `--help` lists the options."),
    (3, "an input can't be read", "Correct or replace the file that the message names. `validate` finds all errors."),
    (4, "weights", "`models verify` finds damaged files, `models fetch` brings them back: [weights](weights.md)."),
    (5, "the device", "`grounded-seg doctor` says what this machine can run; `--device cpu` always works."),
    (1, "an output can't be written", "Make room, or name another folder with `-o`; then `--resume`."),
)
"""Exit code, what it means, and the remedy for all of its messages."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """What mkdocs calls for each page: put the tables where the page has its mark."""
    return markdown.replace(MARK, tables()) if page.file.src_uri == PAGE else markdown


def tables() -> str:
    """A table for each exit code: the messages, and where they come from."""
    codes, found = exit_codes(), defaultdict[int, set[tuple[str, str]]](set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for error, text in raised(ast.parse(path.read_text(encoding="utf-8"))):
            if error in codes and len(text.replace("...", "").split()) > 2:
                found[codes[error]].add((text, path.relative_to(PACKAGE).parts[0].removesuffix(".py")))
    parts = []
    for code, meaning, remedy in GROUPS:
        rows = (f"| {escaped(text)} | {where} |" for text, where in sorted(found[code], key=lambda one: one[0].lower()))
        parts += [f"## Exit code {code}: {meaning}\n\n{remedy}\n\n| message | part |\n|---|---|", *rows, ""]
    return "\n".join(parts)


def exit_codes() -> dict[str, int]:
    """The exit code of each class of `errors.py`, taken from its nearest class that has one."""
    codes: dict[str, int] = {}
    for node in ast.parse((PACKAGE / "errors.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        own = [one.value for one in node.body if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant)]
        bases = [codes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in codes]
        codes[node.name] = int(str(own[0].value)) if own else bases[0]
    return codes


def raised(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Every error that is made with a text of its own: the name of its class, and the text."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            text = template(node.args[0])
            if text:
                yield node.func.id, text


def template(node: ast.expr) -> str:
    """A text with dots for what is filled in; empty where it isn't a text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "..." for one in node.values)
    if isinstance(node, ast.BinOp):
        left, right = template(node.left), template(node.right)
        return f"{left or '...'}{right or '...'}" if left or right else ""
    return ""


def escaped(text: str) -> str:
    """A text as a cell of a table."""
    text = " ".join(text.split())
    for sign in "\\|<>*_[]`":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return text


if __name__ == "__main__":
    print(tables())
