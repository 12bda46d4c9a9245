from pathlib import Path
from typing import Any

import pytest

from grounded_seg.detect.prompts import PromptSet, prompt_set_from, prompts_from, read_prompts
from grounded_seg.errors import UsageError


def test_prompts_are_apart_by_semicolons_only() -> None:
    assert read_prompts(" red car, parked ; dog. ;; red car, parked;caf\u00e9 ").prompts == (
        "red car, parked",
        "dog.",
        "café",
    )


def test_each_prompt_is_its_own_class() -> None:
    assert prompts_from(["dog", "cat", "dog"]) == PromptSet(("dog", "cat"), ("dog", "cat"))


@pytest.mark.parametrize("text", ["", " ", ";; ;"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        read_prompts(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match=r"'caf\\udce9' is not UTF-8"):
        read_prompts("dog; caf\udce9")


def classes_file(folder: Path, text: str) -> str:
    path = folder / "my classes.yaml"
    path.write_text(text, encoding="utf-8")
    return f"@{path}"


def test_several_prompts_share_a_class(tmp_path: Path) -> None:
    found = read_prompts(classes_file(tmp_path, "# vehicles\nred car: car\n'blue: car': car\nDäckel: dog\n"))
    assert found == PromptSet(("red car", "blue: car", "Däckel"), ("car", "car", "dog"))
    assert found.classes == ("car", "dog")
    assert found.class_by_prompt["blue: car"] == "car"


def test_words_that_yaml_would_turn_into_something_else_stay_words(tmp_path: Path) -> None:
    assert read_prompts(classes_file(tmp_path, "no: yes\n42: 1.0\nnull: ~")).class_names == ("yes", "1.0", "~")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red car: car\nred car: vehicle\n", r"my classes\.yaml:2: .*'red car' is there twice"),
        ("red car: car\ndog:\n", r"my classes\.yaml:2: the prompt 'dog' has no class; write `dog: dog`"),
        ('car: car\n"red \\uD83D car": car\n', r"my classes\.yaml:2: .* holds half a character"),
        ("red car: car\ndog: [a, b]\n", r"my classes\.yaml:2: expected `prompt: class`"),
        ("- red car\n", r"my classes\.yaml:1: expected `prompt: class` on each line, such as `red car: red car`"),
        ("\nred car\nball\n", r"my classes\.yaml:2: expected .* such as `red car: red car`"),
        ("", r"my classes\.yaml: expected lines"),
        ("{}", r"my classes\.yaml: expected lines"),
        ("red car: car\nred: : x\n", r"my classes\.yaml:2: this is not YAML"),
        ("!!python/object/apply:os.system ['true']: x\n", r"my classes\.yaml:1: expected `prompt: class`"),
    ],
)
def test_a_faulty_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_prompts(classes_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: .*No such file"):
        read_prompts(f"@{tmp_path}/none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match=r"bytes\.yaml: "):
        read_prompts(f"@{tmp_path}/bytes.yaml")


def test_a_mapping_has_a_class_for_each_prompt(tmp_path: Path) -> None:
    found = prompt_set_from({" red car": "vehicle ", "blue car": "vehicle", "no": "sign"})
    assert found == PromptSet(("red car", "blue car", "no"), ("vehicle", "vehicle", "sign"))
    assert found == read_prompts(classes_file(tmp_path, "red car: vehicle\nblue car: vehicle\nno: sign\n"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "the prompt is empty"),
        ({"dog": "pet", " dog": "animal"}, "'dog' is there twice"),
        ({"dog": " "}, r"expected prompt: class, both of them text, and got \{'dog': ' '\}"),
        ({1: "dog"}, r"got \{1: 'dog'\}"),
        ({"dog": 1}, r"got \{'dog': 1\}"),
        ({"dog": None}, r"got \{'dog': None\}"),
        ({"dog": "caf\udce9"}, r"the class 'caf\\udce9' is not UTF-8"),
    ],
)
def test_a_faulty_mapping_is_refused(classes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prompt_set_from(classes)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, "the prompts are None; give"),
        (5, "the prompts are 5; give"),
        (b"dog", "the prompts are b'dog'; give"),
        (Path("classes.yaml"), r"classes\.yaml'\); give"),
        (["dog", None], "None among the prompts is no text; give"),
        ([("dog", "pet")], r"\('dog', 'pet'\) among the prompts is no text; give"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_forms_there_are(prompts: Any, message: str) -> None:
    forms = '"red car; dog", "@classes.yaml", a list of texts, a mapping of prompts to classes, or a PromptSet'
    with pytest.raises(UsageError, match=f"{message} {forms}$"):
        prompt_set_from(prompts)


def test_prompts_may_come_one_by_one() -> None:
    assert prompt_set_from(word for word in ("dog", "cat", "dog")).prompts == ("dog", "cat")  # type: ignore[arg-type]
