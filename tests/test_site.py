"""The site of docs/: it builds strictly, loads nothing from elsewhere, and lists what it should."""

import ast
import html
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT

import grounded_seg

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
"""What a browser fetches by itself; the address of a link that one clicks isn't."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    pytest.importorskip("material", reason="mkdocs-material isn't installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    surroundings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.release
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 25
    loaded = {found for page in pages for found in LOADED.findall(page.read_text(encoding="utf-8"))}
    # Each page names its own address, and the site has none.
    assert loaded == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\([\"']?(?:https?:)?//|@import", styles) == []


@pytest.mark.release
def test_the_site_lists_options_names_and_messages(site: Path) -> None:
    texts = {page.name: html.unescape(page.read_text(encoding="utf-8")) for page in site.glob("*.html")}
    for option in ("--score-threshold", "--allow-host", "--negative-ratio", "--reviewed"):
        assert option in texts["options.html"], option
    missing = [name for name in grounded_seg.__all__ if name not in texts["reference.html"]]
    assert missing == ["ImageLike", "__version__"]
    assert texts["messages.html"].count("<tr>") > 300
    assert "is already there; name another" in texts["messages.html"] or "name another folder" in texts["messages.html"]
    assert f"[{grounded_seg.__version__}]" in texts["changes.html"] or grounded_seg.__version__ in texts["changes.html"]


def test_every_page_is_in_the_navigation() -> None:
    named: list[str] = []
    waiting = list(CONFIG["nav"])
    while waiting:
        for target in waiting.pop().values():
            if isinstance(target, list):
                waiting.extend(target)
            else:
                named.append(target)
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_messages_of_troubleshooting_are_the_programs_own() -> None:
    """Each that stands in the first column as code: its parts between dots are parts of one text of the program."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    cells = [row.split(" | ")[0] for row in re.findall(r"^\| (.*)$", page.partition("## No message")[0], re.MULTILINE)]
    quoted = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell) if not text.startswith("results.")]
    texts = program_texts()
    assert len(quoted) > 25
    assert [text for text in quoted if not any(holds(known, text) for known in texts)] == []
    assert not any(holds(known, "this message was never written") for known in texts)


def program_texts() -> set[str]:
    """Every text of the package, with dots for what is filled in."""
    hook = runpy.run_path(str(ROOT / "docs" / "hooks" / "messages.py"))
    modules = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "grounded_seg").rglob("*.py"))
    return {
        hook["template"](node).replace("%s", "...")
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    }


def holds(known: str, quoted: str) -> bool:
    """Whether a text has the parts of another one, in their order."""
    parts = [re.escape(part.strip()) for part in quoted.split("...") if part.strip()]
    return re.search(".*".join(parts), known, re.DOTALL) is not None


def test_a_load_from_elsewhere_is_found() -> None:
    assert LOADED.findall('<link rel="stylesheet" href="https://fonts.example/a.css">') == [
        "https://fonts.example/a.css"
    ]
    assert LOADED.findall("<script async src=//cdn.example/a.js></script>") == ["//cdn.example/a.js"]
    assert LOADED.findall('<a href="https://example.org">') == []
