"""The file of classes that an evaluation suggests: it reads back as what it says."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.class_file import read_classes
from grounded_seg.detect.prompt_set import PromptSet
from grounded_seg.detect.prompts import prompt_set_from
from grounded_seg.evaluation.suggest import suggested_classes
from grounded_seg.scoring.thresholds import AtThreshold, ClassThresholds

BEST = AtThreshold(0.37, 0.8, 0.7, 0.75, (0.3, 0.5), (0.7, 0.9), (0.71, 0.79))


def read_back(folder: Path, text: str) -> PromptSet:
    path = folder / "classes.yaml"
    path.write_text(text, encoding="utf-8")
    return read_classes(path)


def test_every_prompt_gets_the_threshold_of_its_class(tmp_path: Path) -> None:
    given: Any = {"red car": {"class": "car", "min_area": 1_000_000}, "van": "car", "dog": "dog", "cat": {"not": "dog"}}
    thresholds = [
        ClassThresholds("car", 9, BEST, AtThreshold(0.6, 0.9, 0.5, 0.64), None),
        ClassThresholds("dog", 0, None, None, None),
    ]
    text = suggested_classes(prompt_set_from(given), thresholds, "truth.json\n(3 images)", None)
    found = read_back(tmp_path, text)
    assert (found.class_names, found.calibration) == (("car", "car", "dog", "cat"), "none")
    assert found.rules_as_json == {
        "red car": {"threshold": 0.37, "min_area": 1_000_000},
        "van": {"threshold": 0.37},
        "cat": {"not": ["dog"]},
    }
    assert "threshold: 0.37  # F1 0.750, 0.710 to 0.790 on other images" in text
    assert "  # 90 % precision from 0.6\n" in text
    assert "  # no threshold: no objects\n" in text
    assert "measured on truth.json (3 images)." in text


@given(st.text(min_size=1, max_size=12))
def test_any_words_read_back_as_they_are(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    words = words.strip()
    if not words or any("\ud800" <= one <= "\udfff" for one in words):
        return
    prompts = prompt_set_from({words: {"class": words, "not": [f"not {words}"]}})  # type: ignore[dict-item]
    found = read_back(
        tmp_path_factory.mktemp("words"), suggested_classes(prompts, [], "t", {"name": "c", "sha256": "ab" * 32})
    )
    assert (found.prompts, found.class_names) == ((words,), (words,))
    assert found.rules[0].unwanted == (f"not {words}",)
    assert found.calibration == "ab" * 32
