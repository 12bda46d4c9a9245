"""The index: the same as reading every line, also while the journal grows or is replaced."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grounded_seg.errors import InputError
from grounded_seg.review.page.journal_index import Flag, JournalIndex


def line(name: str, *instances: dict[str, Any], size: tuple[int, int] | None = (100, 80)) -> dict[str, Any]:
    width, height = size or (None, None)
    status = {"status": "done", "reason": None, "error": None}
    if size is None:
        status = {"status": "skipped", "reason": "it is empty (0 bytes)", "error": "ImageError"}
    return {"file_name": name, "width": width, "height": height, "instances": list(instances), **status}


def one(
    prompt: str = "a cat",
    score: float = 0.5,
    bbox: tuple[float, ...] = (10, 10, 20, 20),
    mask_score: float | None = 0.9,
    **attributes: Any,
) -> dict[str, Any]:
    mask = {"size": [80, 100], "counts": "abc"} if mask_score is not None else []
    return {
        "bbox": list(bbox),
        "area": 400,
        "segmentation": mask,
        "iscrowd": 0,
        "score": score,
        "detector_bbox": list(bbox),
        "attributes": {
            "label": prompt,
            "prompt": prompt,
            "detector_score": score,
            "mask_score": mask_score,
            **attributes,
        },
    }


def append(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(f"{json.dumps(each)}\n" for each in lines)


LINES = (
    line("a.jpg", one(score=0.9), one("a dog", 0.2, leaves_box=True)),
    line("b.jpg"),
    line("c.jpg", size=None),
    line("sub/d.jpg", one(bbox=(0, 5, 10, 10)), one(bbox=(90.5, 5, 9, 10)), one(bbox=(1, 1, 98, 78), mask_score=None)),
)


Open = Callable[..., JournalIndex]


@pytest.fixture
def index_of() -> Iterator[Open]:
    """Makes indices that are closed in the end."""
    with ExitStack() as stack:
        yield lambda path, prompts=(): stack.enter_context(JournalIndex(path, prompts))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    append(tmp_path / "results.jsonl", *LINES)
    return tmp_path / "results.jsonl"


def test_the_columns_hold_what_the_lines_say(index_of: Open, journal: Path) -> None:
    index = index_of(journal, ["a dog"])
    assert index.update() is False
    columns = index.columns
    assert (columns.n_images, columns.n_instances) == (4, 5)
    assert [columns.name(image) for image in range(4)] == ["a.jpg", "b.jpg", "c.jpg", "sub/d.jpg"]
    assert [columns.find(name) for name in ("a.jpg", "sub/d.jpg", "d.jpg", "")] == [0, 3, None, None]
    assert columns.skipped.tolist() == [0, 0, 1, 0]
    assert columns.first.tolist() == [0, 2, 2, 2, 5]
    assert columns.image.tolist() == [0, 0, 3, 3, 3]
    assert [index.prompts[number] for number in columns.prompt] == ["a cat", "a dog", "a cat", "a cat", "a cat"]
    assert columns.score.tolist() == [0.9, 0.2, 0.5, 0.5, 0.5]
    assert np.isnan(columns.mask_score).tolist() == [False, False, False, False, True]
    mask, touches = Flag.HAS_MASK, Flag.TOUCHES_BORDER
    assert columns.flags.tolist() == [mask, mask | Flag.LEAVES_BOX, mask | touches, mask | touches, 0]
    assert [index.line(image) for image in range(4)] == list(LINES)


def test_a_run_that_is_still_written_grows(index_of: Open, journal: Path) -> None:
    index = index_of(journal)
    index.update()
    whole = json.dumps(line("e.jpg", one("a bird", 0.7)))
    with journal.open("a") as file:
        file.write(whole[:50])
    assert index.update() is False
    assert index.columns.n_images == 4
    with journal.open("a") as file:
        file.write(f"{whole[50:]}\n{json.dumps(line('f.jpg'))}\n")
    index.update()
    assert (index.columns.n_images, index.columns.n_instances) == (6, 6)
    assert index.line(4) == line("e.jpg", one("a bird", 0.7))
    assert index.prompts == ["a cat", "a dog", "a bird"]
    assert index.columns.name(5) == "f.jpg"


def test_however_the_journal_is_cut_into_blocks_the_index_is_the_same(
    index_of: Open, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = index_of(journal)
    whole.update()
    for n_bytes in (1, 7, 300, 1000):
        monkeypatch.setattr("grounded_seg.review.page.journal_index._BLOCK_BYTES", n_bytes)
        cut = index_of(journal)
        cut.update()
        for name, column in vars(whole.columns).items():
            np.testing.assert_array_equal(getattr(cut.columns, name), column, err_msg=name)


@pytest.mark.parametrize("is_same_file", [True, False])
def test_lines_that_were_replaced_are_indexed_anew(index_of: Open, journal: Path, is_same_file: bool) -> None:
    index = index_of(journal)
    index.update()
    if is_same_file:
        journal.write_text("")
    else:
        journal.unlink()
    append(journal, line("z.jpg", one(score=0.4)))
    assert index.update() is True
    assert (index.columns.n_images, index.columns.score.tolist()) == (1, [0.4])
    assert index.line(0)["file_name"] == "z.jpg"


def test_a_name_that_is_no_text_is_kept(index_of: Open, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, line("odd\udcff.jpg", one()), line("täglich.jpg"))
    index = index_of(path)
    index.update()
    assert index.columns.name(0) == "odd\udcff.jpg"
    assert index.columns.find("odd\udcff.jpg") == 0
    assert index.columns.find("täglich.jpg") == 1
    assert index.columns.n_instances == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"file_name": 3}', '{"file_name": "a", "status": "done"}'])
def test_a_damaged_line_is_named(index_of: Open, journal: Path, text: str) -> None:
    with journal.open("a") as file:
        file.write(f"{text}\n")
    with pytest.raises(InputError, match=r"results\.jsonl:5: this line is damaged .*--resume"):
        index_of(journal).update()


def test_a_journal_that_is_gone_is_an_input_error(index_of: Open, journal: Path) -> None:
    index = index_of(journal)
    index.update()
    journal.unlink()
    with pytest.raises(InputError, match="can't be read"):
        index.update()
