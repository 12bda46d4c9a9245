"""Scripts of the checkout, run in this process as `python SCRIPT ...` would run them."""

import runpy
import sys
from pathlib import Path

import pytest
from paths import ROOT


def run_script(script: str, *words: str) -> int:
    """Run a script of the checkout with these arguments; its exit code. What it imports from beside it is forgotten."""
    path = ROOT / script
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        patch.setattr(sys, "argv", [str(path), *words])
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
        finally:
            for name, module in list(sys.modules.items()):
                # Two folders may have a module of one name.
                if Path(getattr(module, "__file__", None) or "/").parent == path.parent:
                    del sys.modules[name]
    return 0
