"""Whole runs over files and folders, with models that find painted rectangles."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import Paint
from fakes import ColourDetector

from grounded_seg.coco.schema import JournalLine
from grounded_seg.detect.prompts import PromptSet, prompts_from
from grounded_seg.errors import ImageError, InputError, OutputError, UsageError
from grounded_seg.runs.journal import read_lines
from grounded_seg.runs.manifest import Counts
from grounded_seg.runs.pictures import crop
from grounded_seg.runs.run import run_images
from grounded_seg.settings import Drawn, OnError, RunSettings

RED = prompts_from(["red car"])


class Log:
    """Remembers what a watcher is told."""

    def __init__(self) -> None:
        self.n_images: int | None = None
        self.n_done: int | None = None
        self.lines: list[JournalLine] = []
        self.skipped: list[str] = []

    def started(self, n_images: int, counts: Counts) -> None:
        self.n_images, self.n_done = n_images, counts.n_images

    def finished_image(self, line: JournalLine) -> None:
        self.lines.append(line)
        if line["status"] == "skipped":
            self.skipped.append(line["file_name"])


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(output=tmp_path / "out")


@pytest.fixture
def photos(paint: Paint) -> Path:
    """Four good images and two that can't be read."""
    folder = paint("photos/b.png", red=(2, 3, 12, 9)).parent
    paint("photos/a.png")
    paint("photos/sub/b.png", red=(0, 0, 20, 20), blue=(25, 5, 35, 15))
    paint("photos/b.gif", red=(10, 10, 30, 20))
    (folder / "c.png").write_bytes(b"")
    (folder / "d.jpg").write_text("no image")
    return folder


def run(prompts: PromptSet, path: Path, settings: RunSettings, **changes: Any) -> Counts:
    return run_images(prompts, [path], replace(settings, **changes), Log())


def journal_of(settings: RunSettings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (settings.output / "results.jsonl").read_text().splitlines()]


def coco_of(settings: RunSettings) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((settings.output / "annotations.json").read_text())
    return loaded


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_folder_gives_all_its_files(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    log = Log()
    report = run_images(RED, [photos], settings, log)
    assert (report.n_done, report.n_skipped, report.n_instances, report.exit_code) == (4, 2, 3, 1)
    assert files_in(settings.output) == [
        "annotations.json",
        "overlays/a.png.jpg",
        "overlays/b.gif.jpg",
        "overlays/b.png.jpg",
        "overlays/sub/b.png.jpg",
        "results.jsonl",
        "run.json",
    ]
    assert [line["file_name"] for line in journal_of(settings)] == [
        "a.png", "b.gif", "b.png", "c.png", "d.jpg", "sub/b.png",
    ]  # fmt: skip
    assert (log.n_images, log.skipped) == (6, ["c.png", "d.jpg"])
    assert log.lines == journal_of(settings)


def test_skipped_images_say_why(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(RED, photos, settings)
    empty, other = (line for line in journal_of(settings) if line["status"] == "skipped")
    assert "0 bytes" in empty["reason"]
    assert "format" in other["reason"]
    assert empty["error"] == other["error"] == "ImageError"


def test_the_coco_file_lists_what_was_done(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(PromptSet(("red car", "blue car"), ("car", "car")), photos, settings)
    coco = coco_of(settings)
    assert coco["categories"] == [{"id": 1, "name": "car"}]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.gif", "b.png", "sub/b.png"]
    assert [one["image_id"] for one in coco["annotations"]] == [2, 3, 4, 4]
    assert [one["attributes"]["prompt"] for one in coco["annotations"]] == ["red car"] * 3 + ["blue car"]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_same_images_and_settings_give_the_same_bytes(
    detector: ColourDetector, photos: Path, settings: RunSettings, tmp_path: Path, batch_size: int
) -> None:
    other = replace(settings, output=tmp_path / "again")
    for one in (settings, other):
        run(RED, photos, one, batch_size=batch_size)
    for name in ("annotations.json", "results.jsonl"):
        assert (settings.output / name).read_bytes() == (other.output / name).read_bytes()


def test_batches_are_fixed_by_position(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(RED, photos, settings, batch_size=2)
    # a b | b (c) | (d) sub/b: the places of the unreadable ones are filled up.
    assert detector.batch_sizes == [2, 2, 2]


def test_a_single_bad_image_is_an_error_and_leaves_nothing(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    with pytest.raises(ImageError, match=r"c\.png"):
        run(RED, photos / "c.png", settings)
    assert not settings.output.exists()


def test_only_bad_images_in_a_folder_give_an_empty_coco_file(
    detector: ColourDetector, tmp_path: Path, settings: RunSettings
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    assert run(RED, tmp_path / "bad", settings).exit_code == 1
    coco = coco_of(settings)
    assert (coco["images"], coco["annotations"]) == ([], [])
    assert coco["categories"] == [{"id": 1, "name": "red car"}]


def test_stop_ends_at_the_first_bad_image_and_keeps_what_was_done(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    with pytest.raises(ImageError, match=r"c\.png"):
        run(RED, photos, settings, on_error=OnError.STOP)
    assert [line["file_name"] for line in journal_of(settings)] == ["a.png", "b.gif", "b.png"]


def test_a_folder_without_images_is_an_error(detector: ColourDetector, tmp_path: Path, settings: RunSettings) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="jpg jpeg png"):
        run(RED, tmp_path / "empty", settings)


def test_a_used_folder_is_refused_before_anything_is_read(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    run(RED, photos, settings)
    before = (settings.output / "results.jsonl").read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        run(RED, photos / "missing", settings)
    assert (settings.output / "results.jsonl").read_bytes() == before


def test_overwrite_takes_away_the_earlier_run_and_nothing_else(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    run(RED, photos, settings, save=frozenset({Drawn.OVERLAY, Drawn.CROPS, Drawn.MASKS}))
    (settings.output / "notes.txt").write_text("mine")
    run(RED, photos / "b.png", settings, overwrite=True)
    assert files_in(settings.output) == [
        "annotations.json", "notes.txt", "overlays/b.png.jpg", "results.jsonl", "run.json",
    ]  # fmt: skip
    assert len(journal_of(settings)) == 1


def test_overwrite_spares_what_no_run_wrote(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    settings.output.mkdir()
    (settings.output / "annotations.json").write_text("ground truth")
    with pytest.raises(UsageError, match="no run"):
        run(RED, photos, settings, overwrite=True)
    assert (settings.output / "annotations.json").read_text() == "ground truth"


@pytest.mark.parametrize("inside", ["out", "."])
def test_results_among_the_images_are_no_images(
    detector: ColourDetector, photos: Path, settings: RunSettings, inside: str
) -> None:
    settings = replace(settings, output=photos / inside)
    run(RED, photos, settings)
    first = journal_of(settings)
    run(RED, photos, settings, overwrite=True)
    assert journal_of(settings) == first
    assert len(first) == 6
    with pytest.raises(UsageError, match="earlier run"):
        run(RED, settings.output / "overlays", settings, overwrite=True)


def test_masks_and_crops_are_numbered_by_instance(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    run(prompts_from(["red car", "blue car"]), photos / "sub", settings, save=frozenset({Drawn.MASKS, Drawn.CROPS}))
    assert files_in(settings.output)[1:5] == [
        "crops/b.png.001.png", "crops/b.png.002.png", "masks/b.png.001.png", "masks/b.png.002.png",
    ]  # fmt: skip
    with PIL.Image.open(settings.output / "masks/b.png.002.png") as mask:
        assert (mask.mode, mask.size) == ("L", (40, 30))
        white = np.asarray(mask)
    assert set(np.unique(white)) == {0, 255}
    assert (white == 255).sum() == 8 * 8
    with PIL.Image.open(settings.output / "crops/b.png.002.png") as cut_out:
        assert cut_out.size == (10, 10)
        assert np.asarray(cut_out.convert("RGB")).reshape(-1, 3).max(axis=0).tolist() == [0, 0, 200]


def test_what_is_too_wide_for_a_jpeg_is_drawn_as_png(
    detector: ColourDetector, tmp_path: Path, settings: RunSettings
) -> None:
    PIL.Image.new("RGB", (65_600, 20)).save(tmp_path / "wide.png")
    run(RED, tmp_path / "wide.png", settings)
    assert "overlays/wide.png.png" in files_in(settings.output)


def test_nothing_is_drawn_where_nothing_is_asked(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(RED, photos, settings, save=frozenset())
    assert files_in(settings.output) == ["annotations.json", "results.jsonl", "run.json"]


def test_boxes_only_gives_the_detectors_boxes(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(RED, photos / "b.png", settings, boxes_only=True)
    [annotation] = coco_of(settings)["annotations"]
    assert annotation["bbox"] == annotation["detector_bbox"] == [2, 3, 10, 6]
    assert annotation["area"] == 60
    assert annotation["segmentation"] == []


def test_the_manifest_tells_what_was_done(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(RED, photos, settings, batch_size=3)
    manifest = json.loads((settings.output / "run.json").read_text())
    assert manifest["prompts"] == {"red car": "red car"}
    assert manifest["paths"] == [str(photos)]
    assert manifest["settings"]["batch_size"] == 3
    assert manifest["settings"]["models"]["preset"] == "base-ft"
    assert manifest["settings"]["save"] == ["overlay"]
    counts = {"images": 6, "done": 4, "skipped": 2, "out_of_reach": 0, "instances": 3}
    counts |= {"empty_masks": 0, "unusable_boxes": 0}
    assert manifest["counts"] == counts
    assert set(manifest["seconds"]) == {"load", "read", "detect", "segment", "write", "total"}
    assert manifest["exit_code"] == 1
    assert manifest["models"]["detector"]["name"] == "base-ft"
    assert (manifest["models"]["device"], manifest["models"]["dtype"]) == ("cpu", "float32")


def test_several_paths_are_named_from_their_common_parent(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    report = run_images(RED, [photos / "sub", photos / "b.png"], settings, Log())
    assert report.exit_code == 0
    assert [line["file_name"] for line in journal_of(settings)] == ["b.png", "sub/b.png"]


def test_an_output_that_is_a_file_is_refused(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    settings.output.write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        run(RED, photos, settings, overwrite=True)


def test_a_full_disk_is_one_line_and_the_journal_stays_readable(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, pixels: object) -> None:
        if path.name == "b.png.jpg":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("grounded_seg.runs.pictures.save_picture", full)
    with pytest.raises(OutputError, match=r"b\.png\.jpg.*No space left"):
        run(RED, photos, settings)
    assert [line["file_name"] for line in read_lines(settings.output / "results.jsonl")] == ["a.png", "b.gif"]


def test_a_crop_holds_every_pixel_that_its_box_touches() -> None:
    pixels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert np.array_equal(crop(pixels, (1.2, 0.0, 3.0, 2.5)), pixels[0:3, 1:3])
    assert np.array_equal(crop(pixels, (0.0, 0.0, 8.0, 6.0)), pixels)
