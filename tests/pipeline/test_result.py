"""A result as Python callers use it: length, choices, arrays, tables, files, and how it shows itself."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import ImageError, OutputError, UsageError
from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageSize, Instance

SIZE = ImageSize(20, 10)
ASKED = PromptSet(("dog", "red car", "blue car"), ("animal", "car", "car"))


def mask_of(x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((SIZE.height, SIZE.width), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def instance(prompt: str, score: float, x0: int, *, has_mask: bool = True) -> Instance:
    detection = Detection(f"a {prompt}", prompt, (x0 + 0.25, 1.0, x0 + 5.0, 8.0), score)
    return Instance(detection, run_length_from_mask(mask_of(x0, 2, x0 + 3, 7)) if has_mask else None, 0.5)


FOUND = (instance("dog", 0.9, 0), instance("red car", 0.75, 5), instance("red car", 0.5, 10))


@pytest.fixture
def result(tmp_path: Path) -> PromptedResult:
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (SIZE.width, SIZE.height), "grey").save(path)
    return PromptedResult(path, SIZE, FOUND, asked=ASKED)


def test_it_is_as_long_as_its_instances_and_gives_them_one_by_one(result: PromptedResult) -> None:
    assert len(result) == 3
    assert tuple(result) == FOUND
    assert not result[:0]


def test_arrays_have_a_row_for_each_instance(result: PromptedResult) -> None:
    assert result.boxes_xyxy.dtype == np.float32
    assert result.boxes_xyxy.tolist() == [[0.25, 1, 5, 8], [5.25, 1, 10, 8], [10.25, 1, 15, 8]]
    assert result.scores.dtype == np.float32
    assert result.scores.tolist() == [np.float32(0.9), 0.75, 0.5]
    assert result.labels.tolist() == ["a dog", "a red car", "a red car"]
    assert result.prompts.tolist() == ["dog", "red car", "red car"]
    assert result.class_names.tolist() == ["animal", "car", "car"]
    assert result.class_ids.tolist() == [0, 1, 1]
    masks = result.masks
    assert masks is not None
    assert (masks.shape, masks.dtype) == ((3, 10, 20), np.bool_)
    assert np.array_equal(masks[1], mask_of(5, 2, 8, 7))


def test_arrays_of_nothing_keep_their_forms(result: PromptedResult) -> None:
    nothing = result[:0]
    masks = nothing.masks
    assert masks is not None
    assert (nothing.boxes_xyxy.shape, masks.shape) == ((0, 4), (0, 10, 20))
    assert (nothing.scores.shape, nothing.labels.shape, nothing.class_ids.shape) == ((0,), (0,), (0,))
    assert nothing[nothing.scores > 0.5] == nothing
    assert nothing[nothing.labels == "a dog"] == nothing


def test_boxes_without_masks_have_no_array_of_masks(result: PromptedResult) -> None:
    assert replace(result, instances=(*FOUND[:1], instance("dog", 0.4, 1, has_mask=False))).masks is None


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        ([], []),
        ([True, False, True], [0, 2]),
        (np.array([False, False, False]), []),
        (np.array([1, -1]), [1, 2]),
    ],
)
def test_choices_are_results(result: PromptedResult, chosen: Any, rows: list[int]) -> None:
    some = result[chosen]
    assert some.instances == tuple(FOUND[row] for row in rows)
    assert (some.asked, some.path, some.size) == (ASKED, result.path, SIZE)


def test_a_mask_chooses_by_what_the_arrays_say(result: PromptedResult) -> None:
    assert result[result.scores > 0.7].instances == FOUND[:2]
    assert result[result.prompts == "red car"].instances == FOUND[1:]


@pytest.mark.parametrize("chosen", [3, -4, [0, 9], [True, False], True, [0.5], "dog", [[0, 1]], None])
def test_what_is_no_choice_is_an_index_error(result: PromptedResult, chosen: Any) -> None:
    with pytest.raises(IndexError):
        result[chosen]


def test_it_shows_itself_in_two_lines(result: PromptedResult) -> None:
    first, second = repr(result).splitlines()
    assert repr(str(result.path)) in first
    assert "20 x 10 px, 3 prompts" in first
    assert second == "  3 instances (boxes and masks), scores 0.50 to 0.90: 'animal', 'car' x 2"
    nothing = repr(result[:0]).splitlines()
    assert nothing[1] == "  nothing found of 'dog', 'red car', 'blue car'"
    odd = replace(result, path=Path("two\nlines"), asked=PromptSet(("x\ny",) * 1, ("x\ny",)), instances=())
    assert len(repr(odd).splitlines()) == 2
    many = replace(result, asked=PromptSet(*[tuple(f"prompt {number}" for number in range(100))] * 2), instances=())
    assert len(repr(many).splitlines()[1]) < 150


def test_a_notebook_shows_picture_and_table_escaped(result: PromptedResult) -> None:
    evil = Instance(Detection("<script>", "dog", (0.0, 0.0, 5.0, 5.0), 0.3), None, None)
    shown = replace(result, instances=(*FOUND, evil))._repr_html_()
    assert shown.count("<tr>") == 5
    assert 'src="data:image/jpeg;base64,' in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    result.path.unlink()
    without = replace(result, path=Path("<gone>\udc80.png"))._repr_html_()
    assert "no file is at" in without
    assert "<gone>" not in without
    without.encode()


def test_a_long_table_is_cut(result: PromptedResult) -> None:
    assert "and 50 more" in replace(result, instances=FOUND[:1] * 150)._repr_html_()


def test_it_is_saved_by_the_ending(result: PromptedResult, tmp_path: Path) -> None:
    document = json.loads(result.save(tmp_path / "new" / "a.json").read_text())
    assert document == result.to_coco()
    for ending in ("png", "jpg", "JPEG", "webp", "tif", "bmp"):
        path = result.save(str(tmp_path / f"overlay.{ending}"))
        with PIL.Image.open(path) as picture:
            assert picture.size == (SIZE.width, SIZE.height)
    with PIL.Image.open(tmp_path / "overlay.png") as picture:
        assert np.array_equal(np.asarray(picture), result.draw())


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gif", ".png"])
def test_another_ending_is_refused(result: PromptedResult, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.json for COCO"):
        result.save(name)


def test_a_format_that_is_too_small_is_refused(result: PromptedResult) -> None:
    with pytest.raises(UsageError, match=r"name a \.png"):
        replace(result, size=ImageSize(70_000, 1), instances=()).save("a.jpg")


def test_what_cannot_be_written_is_one_line(result: PromptedResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="another file"):
        result.save(tmp_path / "file" / "a.json")


def test_an_image_in_memory_is_drawn_on_again(result: PromptedResult) -> None:
    pixels = np.zeros((SIZE.height, SIZE.width, 3), np.uint8)
    held = replace(result, path=Path("image"), image=Image(Path("image"), pixels))
    assert (held[:0].draw() == 0).all()
    assert 'src="data:image/jpeg' in held._repr_html_()
    with pytest.raises(ImageError):
        replace(held, image=None).draw()


def test_it_is_shown_or_says_how_else(result: PromptedResult, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def show(image: PIL.Image.Image, title: str | None = None) -> bool:
        shown.append((image.size, title))
        return len(shown) < 2

    monkeypatch.setattr("PIL.ImageShow.show", show)
    result.show()
    assert shown == [((20, 10), "a.png")]
    with pytest.raises(OutputError, match=r"result\.save"):
        result.show()


def test_pandas_has_a_row_for_each_instance(result: PromptedResult) -> None:
    pytest.importorskip("pandas")
    frame = replace(result, instances=(*FOUND[:2], instance("dog", 0.4, 1, has_mask=False))).to_pandas()
    assert frame["prompt"].tolist() == ["dog", "red car", "dog"]
    assert frame["class_name"].tolist() == ["animal", "car", "animal"]
    assert frame[["x0", "y0", "x1", "y1"]].to_numpy().tolist()[1] == [5.25, 1, 10, 8]
    assert frame["mask_area_px"].isna().tolist() == [False, False, True]
    assert frame["mask_area_px"].tolist()[:2] == [15, 15]
    assert frame["path"].tolist() == [str(result.path)] * 3
    assert len(result[:0].to_pandas()) == 0
    assert list(result[:0].to_pandas().columns) == list(frame.columns)


def test_without_pandas_the_error_says_what_to_install(result: PromptedResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        result.to_pandas()


def test_supervision_itself_takes_what_it_is_given(result: PromptedResult) -> None:
    pytest.importorskip("supervision", exc_type=ImportError)
    for some in (result, result[:1], result[:0]):
        detections = some.to_supervision()
        assert len(detections) == len(some)
        assert detections.class_id.tolist() == some.class_ids.tolist()
    assert np.array_equal(result.to_supervision().mask, result.masks)
    kept = result.to_supervision()[result.scores > 0.7]
    assert kept.data["prompt"].tolist() == result[result.scores > 0.7].prompts.tolist()
