"""What an evaluation knows of the run whose predictions it scores."""

from pathlib import Path
from typing import Any

import pytest
from calibrations import weights_of
from coco_cases import written

from grounded_seg.detect.prompt_set import PromptRule
from grounded_seg.evaluation.source_run import SourceRun, run_of

MODELS = weights_of("base-ft", "tuned") | {"segmenter": None}
CALIBRATION = {"path": "c.json", "name": "c.json", "sha256": "ab"}


def source(folder: Path, **manifest: Any) -> SourceRun:
    written(folder / "run.json", manifest)
    found = run_of(folder / "results.jsonl")
    assert found is not None
    return found


def part(threshold: float, **more: Any) -> dict[str, Any]:
    return {"settings": {"detect": {"score_threshold": threshold}}, "models": MODELS, **more}


def test_weights_and_calibration_of_a_run(tmp_path: Path) -> None:
    found = source(tmp_path, **part(0.5, prompts={"red car": "car"}))
    assert (found.score_threshold, found.made_with) == (0.5, {"weights": MODELS})
    found = source(tmp_path, **part(0.5, models=MODELS | {"calibration": CALIBRATION}))
    assert found.made_with == {"weights": MODELS, "calibration": {"name": "c.json", "sha256": "ab"}}


@pytest.mark.parametrize("models", [None, {}, {"detector": 3, "adapter": None, "segmenter": None}, []])
def test_what_is_not_written_down_is_not_known(tmp_path: Path, models: Any) -> None:
    assert source(tmp_path, models=models).made_with == {}


def test_the_highest_threshold_of_all_prompts_counts(tmp_path: Path) -> None:
    prompts, rules = {"red car": "car", "dog": "dog"}, {"red car": {"threshold": 0.3, "not": ["toy"]}}
    found = source(tmp_path, **part(0.5, prompts=prompts, rules=rules))
    assert found.score_threshold == 0.5
    assert found.prompts is not None
    assert found.prompts.rules == (PromptRule(0.3, ("toy",)), PromptRule())
    rules["dog"] = {"threshold": 0.4}
    assert source(tmp_path, **part(0.5, prompts=prompts, rules=rules)).score_threshold == 0.4


def test_merged_runs_share_what_is_alike(tmp_path: Path) -> None:
    prompts, rules = {"red car": "car"}, {"red car": {"not": ["toy"]}}
    moved = MODELS | {"calibration": CALIBRATION | {"name": "moved.json"}}
    one, same, other = (
        part(0.5, prompts=prompts, rules=rules, models=models)
        for models in (MODELS | {"calibration": CALIBRATION}, moved, MODELS)
    )
    found = source(tmp_path, prompts=prompts, merged=[one, {"merged": [same, one]}])
    assert found.made_with["calibration"] == {"name": "c.json", "sha256": "ab"}
    assert found.prompts is not None
    assert found.prompts.rules == (PromptRule(unwanted=("toy",)),)
    assert source(tmp_path, prompts=prompts, merged=[one, other]).made_with == {}
