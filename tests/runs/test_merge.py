"""Runs joined into one: the same bytes as one run over all images, and what doesn't go together."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Paint
from fakes import ColourDetector, Silent

from grounded_seg.cli import main
from grounded_seg.coco.stream import CocoReader
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.images.given import Given, PathList
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.merge import merge_runs
from grounded_seg.runs.run import run_images
from grounded_seg.settings import RunSettings

CARS = PromptSet(("red car", "blue car"), ("red", "blue"))


@pytest.fixture
def photos(paint: Paint) -> Path:
    """Folders with equal base names, and one image that can't be read."""
    for number in range(5):
        for name in ("a", "b", "c"):
            folder = paint(f"photos/{name}/{number}.png", red=(0, 0, 5 + number, 9), blue=(20, 5, 30, 15)).parent
        (folder / "damaged.png").write_bytes(b"")
    return folder.parent


def run(output: Path, *paths: Given, prompts: PromptSet = CARS) -> Path:
    run_images(prompts, paths, RunSettings(output), Silent())
    return output


def test_merged_runs_are_one_run_over_all_images(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", photos)
    (tmp_path / "list").write_text(f"{photos / 'b'}\n{photos / 'c' / '3.png'}\n")
    parts = [
        run(tmp_path / "3", photos / "a"),
        run(tmp_path / "1", PathList(tmp_path / "list")),
        run(tmp_path / "2", *(path for path in (photos / "c").iterdir() if path.name != "3.png")),
    ]
    counts = merge_runs(parts, tmp_path / "merged")
    assert (counts.n_images, counts.n_done, counts.n_skipped, counts.n_instances) == (16, 15, 1, 30)
    for name in ("annotations.json", "results.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (whole / name).read_bytes()
    manifest = json.loads((tmp_path / "merged" / "run.json").read_text())
    assert manifest["prompts"] == CARS.class_by_prompt
    assert manifest["images"] == json.loads((whole / "run.json").read_text())["images"]
    assert [one["settings"]["output"] for one in manifest["merged"]] == list(map(str, parts))


def test_merged_runs_can_be_merged_again_and_exported(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    a, b, c = (run(tmp_path / name, photos / name) for name in "abc")
    merge_runs([a, b], tmp_path / "ab")
    merge_runs([tmp_path / "ab", c], tmp_path / "abc")
    with CocoReader(RunFolder(tmp_path / "abc").annotations) as coco:
        assert [image["file_name"] for image in coco.images.values()][4:6] == ["a/4.png", "b/0.png"]
        assert list(coco.images) == list(range(1, 16))
    result = CliRunner().invoke(
        main, ["export", str(tmp_path / "abc"), "--to", "coco", "--copy-images", "-o", str(tmp_path / "exported")]
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "exported" / "images" / "b" / "0.png").is_file()


def test_classes_keep_the_order_of_the_first_run(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    other = PromptSet(("blue thing", "red thing"), ("blue", "red"))
    parts = [run(tmp_path / "a", photos / "a"), run(tmp_path / "b", photos / "b", prompts=other)]
    merge_runs(parts, tmp_path / "merged")
    coco = json.loads((tmp_path / "merged" / "annotations.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["red", "blue"]
    by_prompt = {one["attributes"]["prompt"]: one["category_id"] for one in coco["annotations"]}
    assert by_prompt == {"red car": 1, "blue car": 2, "red thing": 1, "blue thing": 2}


def test_runs_that_do_not_go_together_are_refused(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    a = run(tmp_path / "a", photos / "a")
    merged = tmp_path / "merged"
    with pytest.raises(UsageError, match="two runs"):
        merge_runs([a], merged)
    with pytest.raises(InputError, match=r"run\.json can't be read"):
        merge_runs([a, photos], merged)
    with pytest.raises(InputError, match=r"no run is at .*nothere; check the path"):
        merge_runs([a, tmp_path / "nothere"], merged)
    with pytest.raises(InputError, match=r"image '0.png' is in two"):
        merge_runs([a, a], merged)
    assert not (merged / "results.jsonl").exists()
    other_classes = run(tmp_path / "b", photos / "b", prompts=PromptSet(("red car",), ("red",)))
    with pytest.raises(UsageError, match=r"has the classes red, .*has red, blue"):
        merge_runs([a, other_classes], merged)
    swapped = run(tmp_path / "c", photos / "c", prompts=PromptSet(CARS.prompts, CARS.class_names[::-1]))
    with pytest.raises(UsageError, match="prompt 'red car' is 'blue' in"):
        merge_runs([a, swapped], merged)
    with pytest.raises(UsageError, match="already holds"):
        merge_runs([a, run(tmp_path / "d", photos / "b")], a)


def test_an_unfinished_run_is_refused(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", photos / "a"), run(tmp_path / "b", photos / "b")
    manifest = json.loads((b / "run.json").read_text())
    (b / "run.json").write_text(json.dumps({**manifest, "exit_code": None}))
    with pytest.raises(UsageError, match=r"isn't finished.*--resume"):
        merge_runs([a, b], tmp_path / "merged")


@pytest.mark.parametrize(
    "damage",
    [
        b"{\n", b"\0\0\n", b"{}\n", b"[]\n", b"7\n", b"\xff\n", b"",
        b'{"file_name": "1.png", "status": "done", "width": 1, "height": 1, "instances": [{}], "reason": null, '
        b'"error": null}\n',
    ],
)  # fmt: skip
def test_a_damaged_journal_is_told_with_its_line(
    detector: ColourDetector, photos: Path, tmp_path: Path, damage: bytes
) -> None:
    a, b = run(tmp_path / "a", photos / "a"), run(tmp_path / "b", photos / "b")
    first, second, *others = (b / "results.jsonl").read_bytes().splitlines(keepends=True)
    # Without damage of another kind, the last line is torn.
    lines = [first, damage, *others] if damage else [first, second[:-30]]
    (b / "results.jsonl").write_bytes(b"".join(lines))
    result = CliRunner().invoke(main, ["merge-runs", str(a), str(b), "-o", str(tmp_path / "ab")])
    assert result.exit_code == 3
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {b / 'results.jsonl'}:2: this line is damaged; the command that wrote it repeats")
    # What the line says is of use.
    run_images(CARS, [photos / "b"], RunSettings(b, resume=True), Silent())
    assert merge_runs([a, b], tmp_path / "ab").n_images == 10


def test_a_journal_that_cannot_be_read_is_one_line(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    a, b = run(tmp_path / "a", photos / "a"), run(tmp_path / "b", photos / "b")

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == b / "results.jsonl":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        return whole(self, *arguments, **options)

    whole = Path.open
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(InputError, match=r"b/results\.jsonl can't be read \(Input/output error\)"):
            merge_runs([a, b], tmp_path / "ab")


def test_a_merged_run_that_gets_no_manifest_leaves_nothing(
    detector: ColourDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [run(tmp_path / name, photos / name) for name in "ab"]

    def refuse(path: Path, text: str) -> None:
        raise OutputError(f"{path} can't be written")

    with monkeypatch.context() as patched:
        patched.setattr("grounded_seg.runs.merge.write_text", refuse)
        with pytest.raises(OutputError, match=r"run\.json can't be written"):
            merge_runs(parts, tmp_path / "ab")
    assert not list((tmp_path / "ab").iterdir())
    assert merge_runs(parts, tmp_path / "ab").n_images == 10


def test_what_a_killed_merge_left_is_replaced(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    a, b = (run(tmp_path / name, photos / name) for name in "ab")
    merge_runs([a, b], tmp_path / "whole")
    left = tmp_path / "left"
    left.mkdir()
    (left / "results.jsonl").write_bytes((tmp_path / "whole" / "results.jsonl").read_bytes()[:200])
    # A journal alone may be what is left of a run.
    with pytest.raises(UsageError, match=r"already holds results\.jsonl"):
        merge_runs([a, b], left)
    (left / ".merging").touch()
    merge_runs([a, b], left)
    files = {path.name: path.read_bytes() for path in left.iterdir() if path.name != "run.json"}
    assert files == {name: (tmp_path / "whole" / name).read_bytes() for name in ("annotations.json", "results.jsonl")}
    with pytest.raises(UsageError, match="already holds"):
        merge_runs([a, b], left)


def test_the_command_says_what_came_of_it(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    parts = [str(run(tmp_path / name, photos / name)) for name in "ac"]
    result = CliRunner().invoke(main, ["merge-runs", *parts, "-o", str(tmp_path / "ac")])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"20 instances in 10 images, 1 skipped: {tmp_path / 'ac'}\n"
    result = CliRunner().invoke(main, ["merge-runs", *parts, "-o", str(tmp_path / "ac")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_a_resumed_run_and_a_merged_one_are_told_apart(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    merge_runs([run(tmp_path / name, photos / name) for name in "ab"], tmp_path / "ab")
    with pytest.raises(UsageError, match="was merged from several runs and can't be resumed"):
        run_images(CARS, [photos], replace(RunSettings(tmp_path / "ab"), resume=True), Silent())
