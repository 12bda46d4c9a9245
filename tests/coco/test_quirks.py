"""A quirk changes nothing: figures, rows and labels are those without it. The page says what each command does."""

import json
import math
import tempfile
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import hypothesis
import pytest
from hypothesis import strategies as st
from quirks import (
    HEIGHT,
    QUIRKS,
    WIDTH,
    Quirk,
    clean_document,
    evaluated,
    exported,
    planted,
    table,
    table_of_page,
    trained,
    write_pictures,
)

from grounded_seg.export.settings import LabelFormat
from grounded_seg.scoring.json_report import report_of

FORMS = ("polygon", "run lengths", "none")
READ = {quirk.name: quirk for quirk in QUIRKS if quirk.is_read}


@st.composite
def objects(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    width, height = draw(st.integers(4, 20)), draw(st.integers(4, 15))
    x, y = draw(st.integers(0, WIDTH - width)), draw(st.integers(0, HEIGHT - height))
    return draw(st.integers(1, 3)), draw(st.integers(1, 2)), (x, y, width, height)


def composed(value: Any) -> Any:
    """A document with all texts in one form of their letters."""
    return json.loads(unicodedata.normalize("NFC", unquote(json.dumps(value, ensure_ascii=False))))


def figures(files: Any, path: Path, predictions: Path | None = None) -> dict[str, Any]:
    """All of a report but notes, and what holds the file's ids or name."""
    evaluation = evaluated(files, path, predictions)
    report = report_of(evaluation.scores, evaluation.speed, (), {})
    for stage in ("boxes", "masks"):
        for one in report.get(stage, {}).get("per_class", ()):
            del one["category_id"]
    return {name: composed(value) for name, value in report.items() if name not in ("data_set", "matches")}


def same(first: Any, second: Any) -> bool:
    """Whether two documents are the same, numbers to 1e-12."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=0, abs_tol=1e-12)
    return bool(first == second)


def rows(files: Any, path: Path) -> list[Any]:
    split, _ = trained(files, path)
    assert not split.faults
    return [
        (unicodedata.normalize("NFC", str(row.image)), row.size, labels(row.boxes), row.unsure)
        for row in split.examples
    ]


def labels(boxes: Any) -> list[Any]:
    return [(unicodedata.normalize("NFC", box.label), box.box_xyxy, box.mask) for box in boxes]


def written(files: Any, path: Path, folder: Path, kind: LabelFormat) -> dict[str, Any]:
    """All files of an export by name: JSON as documents, other text as it is."""
    exported(files, path, folder, kind)
    content: dict[str, Any] = {}
    for file in sorted(one for one in folder.rglob("*") if one.is_file()):
        name = unicodedata.normalize("NFC", file.relative_to(folder).as_posix())
        if file.suffix == ".png":
            content[name] = file.read_bytes()
        elif file.suffix == ".json":
            content[name] = composed(json.loads(file.read_text(encoding="utf-8")))
            if isinstance(content[name], dict):
                content[name].pop("info", None)
        elif file.suffix == ".jsonl":
            content[name] = [composed(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        else:
            content[name] = unicodedata.normalize("NFC", file.read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("name", READ)
@hypothesis.settings(max_examples=4, phases=[hypothesis.Phase.generate])
@hypothesis.given(
    boxes=st.lists(st.tuples(objects(), st.sampled_from(FORMS)), min_size=1, max_size=5, unique_by=lambda one: one[0]),
    choice=st.integers(0, 4),
    kind=st.sampled_from(LabelFormat),
)
def test_a_quirk_changes_no_figure_no_row_and_no_label(
    name: str, boxes: list[tuple[Any, str]], choice: int, kind: LabelFormat
) -> None:
    quirk: Quirk = READ[name]
    document = clean_document([box for box, _ in boxes], [form for _, form in boxes])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = planted(folder, write_pictures(folder / "images"), document, choice % len(boxes), quirk)
        expected = figures(files, files.clean)
        assert same(expected, figures(files, files.quirky))
        assert same(expected, figures(files, files.clean, files.quirky_predictions))
        assert rows(files, files.clean) == rows(files, files.quirky)
        for one in {kind, LabelFormat.COCO}:
            clean, quirky = (
                written(files, path, folder / f"{one}-{path.stem}", one) for path in (files.clean, files.quirky)
            )
            assert clean == quirky


def test_documents_that_differ_are_not_the_same() -> None:
    assert same({"a": [1.0, None]}, {"a": [1.0 + 1e-13, None]})
    assert not same({"a": [1.0]}, {"a": [1.0 + 1e-11]})
    assert not same({"a": 1.0}, {"b": 1.0})


def test_the_page_says_what_each_command_does() -> None:
    assert table() == table_of_page()
