"""The file of classes with rules under a prompt, and the same as a mapping."""

from pathlib import Path
from typing import Any

import pytest

from grounded_seg.detect.class_file import read_classes
from grounded_seg.detect.prompt_set import PromptRule, PromptSet
from grounded_seg.detect.prompts import prompt_set_from
from grounded_seg.errors import UsageError

HASH = "ab" * 32


def classes(folder: Path, text: str) -> PromptSet:
    path = folder / "classes.yaml"
    path.write_text(text, encoding="utf-8")
    return read_classes(path)


RICH = """\
# vehicles
red car:
  class: car
  threshold: 0.35
  not: [toy car, car wheel]
  min_area: 100
  max_detections: 3
van: {class: car, not: toy car}
lorry: truck
no: {threshold: 1e-1}
"""


def test_rules_stand_under_a_prompt_beside_plain_lines(tmp_path: Path) -> None:
    found = classes(tmp_path, RICH)
    assert found.prompts == ("red car", "van", "lorry", "no")
    assert found.class_names == ("car", "car", "truck", "no")
    assert found.classes == ("car", "truck", "no")
    assert found.rules == (
        PromptRule(0.35, ("toy car", "car wheel"), 100, 3),
        PromptRule(unwanted=("toy car",)),
        PromptRule(),
        PromptRule(threshold=0.1),
    )
    assert found.calibration is None
    assert found.unwanted == {"toy car", "car wheel"}
    assert list(found.questions)[:4] == list(found.prompts)
    # Each has a class of its own, so that duplicates aren't looked for among them and the classes.
    assert len(set(found.questions.values())) == 3 + 2


def test_a_mapping_says_the_same(tmp_path: Path) -> None:
    given: Any = {
        "red car": {
            "class": "car",
            "threshold": 0.35,
            "not": ["toy car", "car wheel"],
            "min_area": 100,
            "max_detections": 3,
        },
        "van": {"class": "car", "not": "toy car"},
        "lorry": "truck",
        "no": {"threshold": 0.1},
    }
    found = prompt_set_from(given)
    assert found == classes(tmp_path, RICH)
    said = found.rules_as_json
    assert said == {
        "red car": {"threshold": 0.35, "min_area": 100, "max_detections": 3, "not": ["toy car", "car wheel"]},
        "van": {"not": ["toy car"]},
        "no": {"threshold": 0.1},
    }


def test_an_old_file_has_no_rules(tmp_path: Path) -> None:
    found = classes(tmp_path, "red car: car\nlorry: truck\n")
    assert found == PromptSet(("red car", "lorry"), ("car", "truck"))
    assert (found.rules, found.rules_as_json) == ((), None)
    # A prompt of that name is one, as it was before thresholds named their calibration.
    assert classes(tmp_path, "calibration: target\n") == PromptSet(("calibration",), ("target",))
    assert classes(tmp_path, "calibration: {class: target}\n").prompts == ("calibration",)
    assert classes(tmp_path, "calibration: {class: target}\n").rules == ()


def test_a_prompt_that_is_wanted_itself_is_asked_once_in_its_class(tmp_path: Path) -> None:
    found = classes(tmp_path, "car: {not: truck}\ntruck: truck\n")
    assert found.questions == {"car": "car", "truck": "truck"}
    assert found.unwanted == frozenset()
    only = found.only(["car"])
    assert only.rules == (PromptRule(unwanted=("truck",)),)
    assert only.unwanted == {"truck"}


@pytest.mark.parametrize("named", [HASH, "none"])
def test_thresholds_name_their_calibration(tmp_path: Path, named: str) -> None:
    found = classes(tmp_path, f"calibration:\n  sha256: {named}\ncar: {{threshold: 0.4}}\n")
    assert (found.prompts, found.calibration) == (("car",), named)
    plain = found.without_thresholds()
    assert (plain.rules, plain.calibration) == ((), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog: dog\ncar:\n  class: car\n  treshold: 0.3\n", "4: there is no key 'treshold' (did you mean threshold?)"),
        ("car: {sizes: 1}\n", "1: there is no key 'sizes'; a prompt has class, threshold, not, min_area, max_dete"),
        ("car:\n  threshold: 1.5\n", "2: threshold is '1.5', it must be a finite number, between 0 and 1"),
        ("car:\n  threshold: high\n", "2: threshold is 'high', it must be a finite number"),
        ("car:\n  min_area: 0\n", "2: min_area is '0', it must be a whole number, at least 1"),
        ("car:\n  max_detections: 2.5\n", "2: max_detections is '2.5', it must be a whole number"),
        ("car:\n  not: []\n  class: [a]\n", "3: class is no plain text; name the class"),
        ("car:\n  not: {a: b}\n", "2: not is no prompt and no list of prompts, as in [toy car, car wheel]"),
        ("car:\n  not: [a, [b]]\n", "2: not is no prompt and no list of prompts"),
        ("car:\n  not:\n", "2: not is no prompt and no list of prompts"),
        ("dog: dog\ncar:\n  not: [toy, car]\n", "3: 'car' stands under its own `not`; take it out"),
        ("car:\n  threshold: 0.3\n  threshold: 0.4\n", "3: 'threshold' is there twice; keep one of the lines"),
        ("car: {class: car}\ncar: {class: van}\n", "2: the prompt 'car' is there twice, keep one of the lines"),
        ("calibration:\n  sha256: abc\ncar: car\n", "2: sha256 is neither the hash of a calibration nor none"),
        (f"calibration: {{sha256: {HASH}}}\n", ": expected lines of the form `prompt: class`"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        classes(tmp_path, text)
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "classes.yaml"))
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"car": {"nots": "a"}}, "there is no key 'nots' for the prompt 'car'; a prompt has class, threshold, not"),
        ({"car": {"threshold": "0.3"}}, "the prompt 'car': threshold is '0.3', it must be a finite number"),
        ({"car": {"threshold": 2, "min_area": -1}}, "threshold is 2, it must be between 0 and 1; min_area is -1"),
        ({"car": {"not": 3}}, "not is no prompt and no list of prompts"),
        ({"car": {"class": 3}}, "expected prompt: class, both of them text, and got {'car': 3}"),
        ({"car": {"not": ["car"]}}, "the prompt 'car' stands under its own not; take it out"),
        ({"car": {"not": ["caf\udce9"]}}, "the prompt 'caf\\udce9' is not UTF-8"),
    ],
)
def test_a_faulty_mapping_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        prompt_set_from(given)
    assert message in str(caught.value)
