"""The run that predictions come from: what its `run.json` says of how they were made."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.coco.text import read_json
from grounded_seg.runs.folder import RunFolder


@dataclass(frozen=True)
class SourceRun:
    """What matters for measuring a run's predictions; None for what isn't known."""

    class_by_prompt: Mapping[str, str] | None
    score_threshold: float | None
    """Boxes that score less were dropped; the highest threshold of runs that were merged."""


def run_of(path: Path) -> SourceRun | None:
    """Read the `run.json` beside a run's results; None where there is none.

    Raises:
        InputError: If it can't be read.
    """
    folder = RunFolder(path.parent)
    if path not in (folder.journal, folder.annotations) or not os.path.exists(folder.manifest):
        return None
    manifest = read_json(folder.manifest)
    if not isinstance(manifest, Mapping):
        return None
    prompts = manifest.get("prompts")
    return SourceRun(
        {str(prompt): str(name) for prompt, name in prompts.items()} if isinstance(prompts, Mapping) else None,
        max(_score_thresholds(manifest), default=None),
    )


def _score_thresholds(manifest: Mapping[str, Any]) -> Iterator[float]:
    """Give the threshold of a run, or those of the runs that it was merged from."""
    merged = manifest.get("merged")
    for part in merged if isinstance(merged, list) else ():
        if isinstance(part, Mapping):
            yield from _score_thresholds(part)
    place: Any = manifest
    for key in ("settings", "detect", "score_threshold"):
        place = place.get(key) if isinstance(place, Mapping) else None
    if isinstance(place, int | float):
        yield float(place)
