"""Tests of weights keep their own cache, and don't wait between tries."""

from pathlib import Path

import pytest
from stand_in_hub import caches as caches
from stand_in_hub import hub as hub
from stand_in_hub import pauses as pauses


@pytest.fixture(autouse=True)
def _alone(caches: Path, pauses: list[float]) -> None:
    """Use both in every test of this folder."""
