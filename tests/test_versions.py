"""Versions: the table of the page is that of the package, and a newer transformers is told.

`python tests/test_versions.py --write` writes the table into docs/install.md.
"""

import logging
import re
import sys
import tomllib

import pytest
from paths import ROOT

from grounded_seg.device import versions
from grounded_seg.device.versions import TESTED, warn_of_untested

PAGE = ROOT / "docs" / "install.md"
BEGIN, END = "<!-- versions: python tests/test_versions.py --write -->\n", "<!-- end of versions -->\n"


def table() -> str:
    """Each library with its lowest version and the newest that was tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = dict(one.split(">=") for one in project["dependencies"])
    rows = [f"| {name} | {low} | {TESTED[name][1] if name in TESTED else ''} |" for name, low in lowest.items()]
    return "\n".join(["| library | lowest | newest tested |", "|---|---|---|", *rows])


def test_the_page_has_the_versions() -> None:
    assert f"{BEGIN}\n{table()}\n\n{END}" in PAGE.read_text(encoding="utf-8")


def test_python_is_named_alike_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [one.rpartition(" ")[2] for one in project["classifiers"] if re.search(r":: 3\.\d+$", one)]
    assert named == ["3.11", "3.12", "3.13"]
    assert f'python=["{named[0]}", "{named[1]}", "{named[2]}"]' in (ROOT / "noxfile.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("here", "n_told"), [("5.24.3", 0), ("5.25.0", 1), ("6.0", 1), (None, 0)])
def test_a_newer_transformers_is_told_once(
    here: str | None, n_told: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(versions, "TESTED", {"transformers": ("5.13", "5.24")})
    monkeypatch.setattr(versions, "installed", lambda _: here)
    warn_of_untested.cache_clear()
    with caplog.at_level(logging.WARNING, logger="grounded_seg"):
        for _ in range(2):
            warn_of_untested("transformers")
    warn_of_untested.cache_clear()
    assert len(caplog.messages) == n_told
    assert all("pip install 'transformers==5.24.*'" in message for message in caplog.messages)


def test_loading_a_model_looks_at_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    from grounded_seg.detect.model import load

    asked: list[str] = []
    monkeypatch.setattr(load, "warn_of_untested", asked.append)
    load.load_network(ROOT / "checkpoints" / "demo" / "detector")
    assert asked == ["transformers"]


if __name__ == "__main__":
    if "--write" in sys.argv:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table()}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
