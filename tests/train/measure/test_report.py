"""What stands in `report.md`: cells of a readable length, figures in words, and what was counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from train_cases import od_row, read_data, tiny_settings, write_jsonl

from grounded_seg.train.measure.metrics import Answered
from grounded_seg.train.measure.report import write_report


def words_said(answered: Any) -> dict[str, float]:
    return {"words": sum(len(one.text.split()) for one in answered) / len(answered)}


words_said.lower_is_better = True  # type: ignore[attr-defined]


def test_long_texts_are_cut_and_figures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a.png", "b.png", "c.png")
    rows = [od_row(name, f"a box and {text}", "<CAPTION>") for name in names for text in ("a | bar", "more " * 60)]
    path = write_jsonl(tmp_path / "data", rows)
    settings = tiny_settings(path.parent, tmp_path, Path("base"), metrics=(words_said,))
    data = read_data(path.parent, (34, 33, 33))

    def ask(_settings: object, result: Path | None, questions: Any, *, progress: Any) -> list[Answered]:
        progress(len(questions), len(questions))
        return [Answered(one, "one two " * 100 if result else one.answer) for one in questions]

    seen: list[tuple[str, int, int]] = []
    monkeypatch.setattr("grounded_seg.train.measure.report.ask", ask)
    figures = write_report(settings, data, lambda *told: seen.append(told))
    assert seen == [("test questions", 2, 2)] * 2
    text = (tmp_path / "report.md").read_text()
    lines = text.splitlines()
    assert "Test split: 1 image, 2 texts." in text
    assert "| exact matches (higher is better) | 1.000 | 0.000 | -1.000 |" in lines
    assert "| words (lower is better) | 34.500 | 200.000 | +165.500 |" in lines
    # The names in run.json are those of the figures.
    assert figures.keys() == {"exact_match", "edit_distance", "words"}
    [short, long] = [line for line in lines if ".png |" in line]
    assert r"| a box and a \| bar |" in short
    cells = long.strip("| ").split(" | ")
    assert [len(cell) for cell in cells[2:]] == [202, 202, 202]
    assert cells[4] == ("one two " * 25).rstrip() + "..."
    assert json.dumps(figures)
