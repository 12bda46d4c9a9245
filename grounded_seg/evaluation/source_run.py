"""What matters of the run that predictions come from: its prompts, thresholds, weights and calibration."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.text import read_json
from grounded_seg.detect.prompt_set import PromptSet
from grounded_seg.detect.prompts import prompt_set_from
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.manifest import refuse_evaluation
from grounded_seg.scoring.json_report import truth_sha256
from grounded_seg.scoring.score_maps import read_calibration


@dataclass(frozen=True)
class SourceRun:
    """What matters of a run; None for what isn't known."""

    prompts: PromptSet | None = None
    score_threshold: float | None = None
    """Boxes that score less were dropped: the highest threshold of all prompts, and of runs that were merged."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """`weights` and `calibration`, as a report has them; empty where they aren't known, or differ between merged runs.
    """


def run_of(path: Path) -> SourceRun | None:
    """Read the `run.json` beside a run's results; None where there is none."""
    folder = RunFolder(path.parent)
    if path not in (folder.journal, folder.annotations) or not os.path.exists(folder.manifest):
        return None
    manifest = read_json(folder.manifest)
    if not isinstance(manifest, Mapping):
        return None
    refuse_evaluation(manifest, path.parent)
    parts = list(_parts_of(manifest))
    made_with = [_made_with(one) for one in parts]
    return SourceRun(
        _prompts_of(manifest, parts[0].get("rules")),
        max((value for one in parts for value in _score_thresholds(one)), default=None),
        made_with[0] if all(_hashes(one) == _hashes(made_with[0]) for one in made_with) else {},
    )


def weights_of(models: Mapping[str, Any]) -> dict[str, Any]:
    """Name and hash of each of a run's weights; None for a part that it had none of."""
    return {
        part: None if models[part] is None else {"name": models[part]["name"], "sha256": models[part]["sha256"]}
        for part in ("detector", "adapter", "segmenter")
    }


def calibration_of(models: Mapping[str, Any]) -> dict[str, Any]:
    """Name and hash of the calibration that a run's scores are of, as `calibration`; empty where there is none."""
    calibration = models.get("calibration")
    return {} if calibration is None else {"calibration": {key: calibration[key] for key in ("name", "sha256")}}


def notes_on_calibration(data_set: DataSet, calibration: Path | None) -> list[str]:
    """Say that a calibration was fitted to the images that it is measured on, if it was."""
    if calibration is None or read_calibration(calibration).truth_sha256 != truth_sha256(data_set):
        return []
    return [
        f"{calibration.name} was fitted to this data set: the calibration error, and the F1 to expect of a threshold, "
        "are too good here; measure on other images"
    ]


def _parts_of(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give a run, or the runs that it was merged from."""
    merged = manifest.get("merged")
    parts = [one for one in merged if isinstance(one, Mapping)] if isinstance(merged, list) else []
    for part in parts:
        yield from _parts_of(part)
    if not parts:
        yield manifest


def _prompts_of(manifest: Mapping[str, Any], rules: object) -> PromptSet | None:
    prompts = manifest.get("prompts")
    if not isinstance(prompts, Mapping) or not prompts:
        return None
    plain = PromptSet(tuple(map(str, prompts)), tuple(map(str, prompts.values())))
    if not isinstance(rules, Mapping):
        return plain
    return prompt_set_from({prompt: {"class": name, **rules.get(prompt, {})} for prompt, name in prompts.items()})


def _made_with(manifest: Mapping[str, Any]) -> dict[str, Any]:
    models = manifest.get("models")
    try:
        return {} if models is None else {"weights": weights_of(models), **calibration_of(models)}
    except (KeyError, TypeError, AttributeError):
        # Of another version, or changed by hand: nothing is known then.
        return {}


def _hashes(made_with: Mapping[str, Any]) -> list[str | None]:
    """What tells weights and calibration from others, wherever they lie."""
    parts = [*made_with.get("weights", {}).values(), made_with.get("calibration")]
    return [None if one is None else one["sha256"] for one in parts]


def _score_thresholds(manifest: Mapping[str, Any]) -> Iterator[float]:
    """Give the threshold of each prompt of a run."""
    value: Any = manifest
    for key in ("settings", "detect", "score_threshold"):
        value = value.get(key) if isinstance(value, Mapping) else None
    prompts, rules = manifest.get("prompts"), manifest.get("rules")
    of_prompts = [rules.get(prompt, {}).get("threshold", value) for prompt in prompts or ()] if rules else [value]
    yield from (float(one) for one in of_prompts if isinstance(one, int | float))
