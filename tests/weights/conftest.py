"""Tests of weights keep their own cache, and don't wait between tries."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from stand_in_hub import StandInHub, serving

from grounded_seg.weights import retries


@pytest.fixture(autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own: `own` in it is this package's cache, `hub` the hub's."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("GROUNDED_SEG_CACHE", str(folder / "own"))
    for name in ("GROUNDED_SEG_MIRROR", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    # A proxy of the environment isn't asked about this machine.
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    return folder


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time here."""
    slept: list[float] = []
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(sleep=slept.append))
    return slept


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub on this machine, and Meta's files beside it."""
    with serving() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.hub_url)
        monkeypatch.setenv("GROUNDED_SEG_MIRROR", stand_in.files_url)
        yield stand_in
