"""Scripts of the checkout, run in this process as `python SCRIPT ...` would run them."""

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paths import ROOT


def run_script(script: str, *words: str) -> int:
    """Run a script of the checkout with these arguments; its exit code."""
    path = ROOT / script
    with scripts_of(path.parent) as patch:
        patch.setattr(sys, "argv", [str(path), *words])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@contextmanager
def scripts_of(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Let a folder's scripts be imported; they are forgotten at the end, as two folders may have one of one name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        try:
            yield patch
        finally:
            for name, module in list(sys.modules.items()):
                if Path(getattr(module, "__file__", None) or "/").parent == folder:
                    del sys.modules[name]
