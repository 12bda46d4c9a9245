"""Runs that are cut off and gone on with: the same bytes, nothing lost, nothing twice; and what is refused."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from conftest import Paint
from fakes import ColourDetector, FakeKernels, FakeVersions, Silent, found_models
from paths import DATA, TESTS

from grounded_seg.coco.schema import JournalLine
from grounded_seg.detect.prompts import PromptSet, prompts_from
from grounded_seg.errors import DeviceMemoryError, ImageError, InputError, OutputError, UsageError
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.records import Detection, Image
from grounded_seg.runs import run as runs
from grounded_seg.runs.journal import read_lines
from grounded_seg.runs.manifest import Counts
from grounded_seg.runs.run import run_images
from grounded_seg.settings import DetectSettings, Drawn, ModelSettings, OnError, Precision, RunSettings, TileSettings

RED = prompts_from(["red car"])
N_IMAGES = 12
N_LINES = N_IMAGES + 1
EARLIER_RUN = DATA / "earlier_run"
FAKE_RUN = [sys.executable, str(TESTS / "fake_run.py")]


class Stopper(Silent):
    """Raises after so many images."""

    def __init__(self, n_images: int, error: BaseException) -> None:
        self.n_left = n_images
        self.error = error

    def finished_image(self, line: JournalLine) -> None:
        self.n_left -= 1
        if self.n_left == 0:
            raise self.error


class Filler(Silent):
    """After so many images no file may grow beyond a limit: below our code, a write takes a part and then fails."""

    def __init__(self, limit_bytes: int, n_images: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_left = n_images

    def started(self, n_images: int, counts: Counts) -> None:
        self.fill()

    def finished_image(self, line: JournalLine) -> None:
        self.n_left -= 1
        self.fill()

    def fill(self) -> None:
        if self.n_left == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def photos(paint: Paint) -> Path:
    """Good images, and one among them that can't be read."""
    for number in range(N_IMAGES):
        folder = paint(f"photos/{number:02}.png", red=(0, 0, 5 + number, 9)).parent
    (folder / "05-damaged.png").write_bytes(b"")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(output=tmp_path / "out", batch_size=4)


@pytest.fixture
def whole(detector: ColourDetector, photos: Path, settings: RunSettings, tmp_path: Path) -> dict[str, bytes]:
    """What a run that nothing cuts off writes."""
    settings = replace(settings, output=tmp_path / "whole")
    run(photos, settings)
    detector.batch_sizes.clear()
    return results_of(settings.output)


def run(
    photos: Path, settings: RunSettings, watcher: Silent | None = None, prompts: PromptSet = RED, **changes: Any
) -> Counts:
    return run_images(prompts, [photos], replace(settings, **changes), watcher or Silent())


def results_of(output: Path) -> dict[str, bytes]:
    """All files but run.json, which tells the time."""
    files = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "run.json"}


def n_lines(output: Path) -> int:
    journal = output / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.parametrize("n_done", [1, 3, 4, 5, 6, 11, 12, 13])
def test_a_resumed_run_gives_the_bytes_of_an_uninterrupted_one(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes], n_done: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(n_done, KeyboardInterrupt()))
    # The line of the image that was being reported is in the journal; no later one is.
    assert n_lines(settings.output) == n_done
    assert not (settings.output / "annotations.json").exists()
    detector.batch_sizes.clear()
    watcher = Silent()
    report = run(photos, settings, watcher, resume=True)
    assert results_of(settings.output) == whole
    # The sixth name is the damaged one's; all others show one thing.
    is_skipped = n_done >= 6
    assert (watcher.n_done, watcher.n_found, watcher.n_skipped) == (n_done, n_done - is_skipped, is_skipped)
    assert (report.n_done, report.n_skipped, report.n_instances) == (N_IMAGES, 1, N_IMAGES)
    # A batch that was cut off is asked about whole, and none before it.
    n_batches = 0 if n_done == N_LINES else -(-N_LINES // 4) - n_done // 4
    assert detector.batch_sizes == [4] * n_batches


def test_a_run_that_is_cut_off_again_and_again_comes_to_its_end(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    n_interruptions = 0
    while True:
        try:
            run(photos, settings, Stopper(2, KeyboardInterrupt()), resume=True)
        except KeyboardInterrupt:
            n_interruptions += 1
        else:
            break
    assert n_interruptions == N_LINES // 2
    assert results_of(settings.output) == whole


def test_a_torn_line_is_mended(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    journal = settings.output / "results.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


@pytest.mark.parametrize("leftover", ["nothing", "no journal", "an empty journal", "half a line"])
def test_a_run_that_left_no_whole_line_starts_afresh(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes], leftover: str
) -> None:
    if leftover != "nothing":
        with pytest.raises(KeyboardInterrupt):
            run(photos, settings, Stopper(2, KeyboardInterrupt()))
        journal = settings.output / "results.jsonl"
        half = journal.read_bytes()[:40]
        journal.unlink()
        if leftover != "no journal":
            journal.write_bytes(half if leftover == "half a line" else b"")
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


def test_a_finished_run_is_left_as_it_is_without_loading_a_model(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(photos, settings)
    before, manifest = results_of(settings.output), (settings.output / "run.json").read_bytes()
    monkeypatch.setattr(runs, "find_models", None)
    again = run(photos, settings, resume=True)
    assert results_of(settings.output) == before
    assert (settings.output / "run.json").read_bytes() == manifest
    assert replace(again, seconds={}, is_resumed=False) == replace(first, seconds={})
    assert again.exit_code == 1  # one image was skipped


def test_a_run_that_was_cut_off_before_its_last_file_gets_that(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(N_LINES, KeyboardInterrupt()))
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole
    manifest = json.loads((settings.output / "run.json").read_text())
    assert manifest["exit_code"] == 1
    assert (manifest["counts"]["done"], manifest["counts"]["empty_masks"]) == (N_IMAGES, None)


@pytest.mark.parametrize("is_there", [True, False])
def test_results_without_their_journal_are_not_taken_for_a_killed_run(
    detector: ColourDetector, photos: Path, settings: RunSettings, is_there: bool
) -> None:
    run(photos, settings)
    (settings.output / "results.jsonl").unlink()
    if is_there:
        (settings.output / "results.jsonl").touch()
    before = results_of(settings.output)
    with pytest.raises(UsageError, match=r"annotations\.json is there, but not results\.jsonl.*--overwrite"):
        run(photos, settings, resume=True)
    assert results_of(settings.output) == before


def test_a_run_that_was_killed_while_it_cleared_the_folder_starts_afresh(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(photos, settings, prompts=prompts_from(["blue car"]))
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(photos, settings, overwrite=True)
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


@pytest.mark.parametrize("killed_at", ["grounded_seg.runs.run.Journal.empty", "grounded_seg.runs.folder.Path.unlink"])
def test_a_run_that_was_killed_while_it_cleared_the_records_can_be_resumed(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    killed_at: str,
) -> None:
    def kill(one: Any, missing_ok: bool = True) -> None:
        if isinstance(one, Path) and one.name != "run.json":
            return unlink(one, missing_ok)
        raise KeyboardInterrupt

    run(photos, settings)
    earlier, unlink = results_of(settings.output), Path.unlink
    with monkeypatch.context() as patched:
        patched.setattr(killed_at, kill)
        with pytest.raises(KeyboardInterrupt):
            run(photos, settings, overwrite=True)
    assert not (settings.output / "annotations.json").exists()
    assert (settings.output / "run.json").exists()
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole == earlier


def test_what_stopped_at_a_bad_image_may_go_on_without_it(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    with pytest.raises(ImageError, match="05-damaged"):
        run(photos, settings, on_error=OnError.STOP)
    assert n_lines(settings.output) == 4
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 2}, "batch-size was 4 and is 2"),
        ({"detect": DetectSettings(score_threshold=0.3)}, "detect score-threshold was 0.5 and is 0.3"),
        ({"tiles": TileSettings(20)}, "tiles side was null and is 20"),
        ({"boxes_only": True}, "boxes-only was false and is true"),
        ({"max_pixels": 1000}, "max-pixels was 178956970 and is 1000"),
        ({"save": frozenset({Drawn.CROPS})}, 'save was ["overlay"] and is ["crops"]'),
    ],
)
def test_other_settings_are_refused_by_name(
    detector: ColourDetector, photos: Path, settings: RunSettings, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    before = results_of(settings.output)
    with pytest.raises(UsageError) as raised:
        run(photos, settings, resume=True, **changes)
    assert says in str(raised.value)
    assert "--overwrite" in str(raised.value)
    assert results_of(settings.output) == before


def test_other_prompts_are_refused(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run(photos, settings, prompts=prompts_from(["red car", "blue car"]))
    for other in (["blue car", "red car"], ["red car"]):
        with pytest.raises(UsageError, match="prompts was"):
            run(photos, settings, prompts=prompts_from(other), resume=True)
    with pytest.raises(UsageError, match="prompts was"):
        run(photos, settings, prompts=PromptSet(("red car", "blue car"), ("car", "car")), resume=True)


def test_of_long_values_the_message_has_what_differs(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    asked = [f"{colour} car" for colour in ("red", "blue", "green", "yellow")]
    run(photos, settings, prompts=prompts_from([*asked, "star"]))
    differs = r'was \.\.\.\S* ?\S*, \["star", "star"\]\] and is \.\.\.\S* ?\S*, \["box", "box"\]\];'
    with pytest.raises(UsageError, match=differs):
        run(photos, settings, prompts=prompts_from([*asked, "box"]), resume=True)


def test_other_images_are_refused(detector: ColourDetector, photos: Path, settings: RunSettings, paint: Paint) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    added = paint("photos/99.png")
    with pytest.raises(UsageError, match="number of images was 13 and is 14"):
        run(photos, settings, resume=True)
    added.unlink()
    (photos / "11.png").rename(photos / "98.png")
    with pytest.raises(UsageError, match="list of images was"):
        run(photos, settings, resume=True)


def test_a_run_from_before_heic_counted_says_so(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    for name in ("a.heic", "b.AVIF"):
        (photos / name).write_bytes(b"x")
    with pytest.raises(UsageError, match=r"from before HEIC and AVIF .* there are 2 of them, such as 'a\.heic'; move"):
        run(photos, settings, resume=True)
    (photos / "b.AVIF").rename(photos / "b.png")
    with pytest.raises(UsageError, match="number of images was 13 and is 15"):
        run(photos, settings, resume=True)


def begin_with_earlier_version(settings: RunSettings, photos: Path, dtype: str = "float32") -> None:
    """Put the first four lines of a run into its folder, as the version before float32 logits left them."""
    shutil.copytree(EARLIER_RUN, settings.output)
    manifest = json.loads((settings.output / "run.json").read_text())
    manifest["images"]["root"], manifest["models"]["dtype"] = str(photos), dtype
    (settings.output / "run.json").write_text(json.dumps(manifest))


def test_a_run_of_an_earlier_version_in_float32_is_resumed_with_a_warning(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    begin_with_earlier_version(settings, photos)
    (photos / "a.heic").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"from before HEIC and AVIF .* move them away to resume it"):
        run(photos, settings, resume=True)
    # The advice holds.
    (photos / "a.heic").unlink()
    report = run(photos, settings, resume=True)
    assert report.n_done == N_IMAGES
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "this run was begun with an earlier version of grounded-seg"
    ]
    results = results_of(settings.output)
    assert results["results.jsonl"] == whole["results.jsonl"]
    assert results["annotations.json"] == whole["annotations.json"]
    caplog.clear()
    run(photos, settings, resume=True)
    assert not caplog.records


@pytest.mark.parametrize("has_heic", [False, True])
def test_a_run_of_an_earlier_version_with_rounded_logits_is_refused_in_one_line(
    detector: ColourDetector, photos: Path, settings: RunSettings, has_heic: bool
) -> None:
    begin_with_earlier_version(settings, photos, dtype="bfloat16")
    if has_heic:
        (photos / "a.heic").write_bytes(b"x")
    before = results_of(settings.output)
    with pytest.raises(UsageError, match=r"earlier version.*logits were bfloat16.*--overwrite") as raised:
        run(photos, settings, resume=True)
    assert not any(wrong in str(raised.value) for wrong in ("move", "same settings", "\n"))
    assert results_of(settings.output) == before


def test_a_finished_run_of_an_earlier_version_is_left_as_it_is(
    detector: ColourDetector, photos: Path, settings: RunSettings, caplog: pytest.LogCaptureFixture
) -> None:
    run(photos, settings)
    path = settings.output / "run.json"
    manifest = json.loads(path.read_text())
    del manifest["models"]["logits_dtype"]
    manifest["models"]["dtype"] = "bfloat16"
    path.write_text(json.dumps(manifest))
    before = path.read_bytes()
    assert run(photos, settings, resume=True).n_done == N_IMAGES
    assert path.read_bytes() == before
    assert not caplog.records


def test_what_changes_no_result_may_change(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(8, KeyboardInterrupt()))
    settings.output.rename(tmp_path / "moved")
    models = ModelSettings(offline=True)
    run(photos, settings, resume=True, output=tmp_path / "moved", models=models, on_error=OnError.STOP)
    assert results_of(tmp_path / "moved")["annotations.json"] == whole["annotations.json"]


def test_images_in_another_place_are_told(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(8, KeyboardInterrupt()))
    run(photos, settings, resume=True)
    assert not caplog.records
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(8, KeyboardInterrupt()), overwrite=True)
    photos.rename(tmp_path / "moved")
    run(tmp_path / "moved", settings, resume=True)
    [record] = caplog.records
    assert f"begun with the images in {photos} and is resumed with those in {tmp_path / 'moved'}" in record.getMessage()
    assert results_of(settings.output) == whole
    assert json.loads((settings.output / "run.json").read_text())["images"]["root"] == str(tmp_path / "moved")


@pytest.mark.parametrize("manifest", [None, "{", "[]", "{}"])
def test_a_journal_without_its_manifest_is_no_run_to_go_on_with(
    detector: ColourDetector, photos: Path, settings: RunSettings, manifest: str | None
) -> None:
    run(photos, settings)
    (settings.output / "run.json").unlink()
    if manifest is not None:
        (settings.output / "run.json").write_text(manifest)
    with pytest.raises((InputError, UsageError), match=r"run\.json"):
        run(photos, settings, resume=True)


def test_a_journal_that_is_out_of_turn_is_refused(
    detector: ColourDetector, photos: Path, settings: RunSettings
) -> None:
    run(photos, settings)
    journal = settings.output / "results.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[1:]))
    with pytest.raises(UsageError, match=r"line 1 of .*results.jsonl is about '01.png'"):
        run(photos, settings, resume=True)


def test_both_ways_to_use_a_used_folder_at_once_are_refused(settings: RunSettings) -> None:
    with pytest.raises(UsageError, match="--resume"):
        replace(settings, resume=True, overwrite=True)


def test_halves_are_remembered(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, room = detector.detect, [4]

    def detect(images: Sequence[Image], *prompts: Any) -> list[tuple[Detection, ...]]:
        if len(images) > room[0]:
            raise DeviceMemoryError("full")
        return found(images, *prompts)

    monkeypatch.setattr(detector, "detect", detect)
    monkeypatch.setitem(sys.modules, "grounded_seg.device.memory", SimpleNamespace(free_memory=lambda: None))
    room[0] = 2
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(7, KeyboardInterrupt()))
    assert json.loads((settings.output / "run.json").read_text())["images_at_once"] == 2
    room[0] = 4
    detector.batch_sizes.clear()
    run(photos, settings, resume=True)
    assert set(detector.batch_sizes) == {2}
    assert json.loads((settings.output / "run.json").read_text())["images_at_once"] == 2


def test_a_full_disk_can_be_gone_on_from(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, pixels: object) -> None:
        if path.name == "07.png.jpg":
            raise OSError(28, "No space left on device", str(path))
        save(path, pixels)  # type: ignore[arg-type]

    from grounded_seg.runs.pictures import save_picture as save

    with monkeypatch.context() as patched:
        patched.setattr("grounded_seg.runs.pictures.save_picture", full)
        with pytest.raises(OutputError, match=r"07\.png\.jpg.*No space left"):
            run(photos, settings)
    assert n_lines(settings.output) == 8
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


@pytest.mark.parametrize(
    ("what", "limit", "after", "n_done"),
    [("run.json", 1000, 0, [0]), ("results.jsonl", 3000, 0, range(1, N_LINES)), ("annotations.json", 1000, 13, [13])],
)
def test_a_system_that_takes_no_more_leaves_whole_lines(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    what: str,
    limit: int,
    after: int,
    n_done: Sequence[int],
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match=rf"{what} can't be written \(File too large\)"):
            run(photos, settings, Filler(limit, after))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal = (settings.output / "results.jsonl").read_bytes()
    assert whole["results.jsonl"].startswith(journal)
    assert journal.endswith(b"\n") or not journal
    assert n_lines(settings.output) in n_done
    assert not [path for path in settings.output.iterdir() if path.name.endswith(".part")]
    run(photos, settings, resume=True)
    assert results_of(settings.output) == whole


def test_kills_at_random_moments_lose_nothing(
    photos: Path, settings: RunSettings, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*FAKE_RUN, "run", "red car", str(photos), "-o", str(settings.output), "--batch-size", "4", "--resume"]
    monkeypatch.setenv("SECONDS_PER_BATCH", "0.5")
    chance, n_in_mid_journal = random.Random(0), 0  # noqa: S311  (reproducible is the point)
    for _ in range(4):
        before = n_lines(settings.output)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wanted = before + chance.randint(1, 3)
            while process.poll() is None and n_lines(settings.output) < wanted:
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
        n_in_mid_journal += 0 < n_lines(settings.output) < N_LINES
    assert n_in_mid_journal >= 2
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert results_of(settings.output) == whole


def test_lines_that_standard_output_does_not_take_are_told(
    photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    command = [*FAKE_RUN, "run", "red car", str(photos), "-o", str(settings.output), "--batch-size", "4", "--overwrite"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: standard output can't be written (No space left on device)")
    # What it says is what goes.
    assert "to resume, run the same command with --resume instead of --overwrite" in line
    assert n_lines(settings.output) == 1
    again = [*command[:-1], "--resume", "--json"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, N_LINES - 1)
    assert results_of(settings.output) == whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_order(
    photos: Path, settings: RunSettings, whole: dict[str, bytes], number: signal.Signals, monkeypatch: Any
) -> None:
    command = [*FAKE_RUN, "run", "red car", str(photos), "-o", str(settings.output), "--batch-size", "4"]
    monkeypatch.setenv("SECONDS_PER_BATCH", "2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and n_lines(settings.output) == 0:
            time.sleep(0.01)
        # While it runs, no other run may write there.
        for changes in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match="another run is writing"):
                run(photos, settings, **changes)
        process.send_signal(number)
        out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    [line] = err.strip().splitlines()
    assert line.startswith("error: interrupted")
    assert "--resume" in line
    assert n_lines(settings.output) < N_LINES
    monkeypatch.setenv("SECONDS_PER_BATCH", "0")
    assert subprocess.run([*command, "--resume"], capture_output=True, check=False).returncode == 1
    assert results_of(settings.output) == whole


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (ModelSettings(detector="another"), "models detector sha256 was"),
        (ModelSettings(adapter="another"), "models adapter"),
        (ModelSettings(segmenter="another"), "models segmenter sha256 was"),
        (ModelSettings(dtype=Precision.BFLOAT16), 'models dtype was "float32" and is "bfloat16"'),
        (ModelSettings(device="cuda:0"), 'models device was "cpu" and is "cuda"'),
    ],
)
@pytest.mark.parametrize("n_done", [6, N_LINES])
def test_other_models_are_refused(
    detector: ColourDetector, photos: Path, settings: RunSettings, models: ModelSettings, says: str, n_done: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(n_done, KeyboardInterrupt()))
    if n_done == N_LINES:
        run(photos, settings, resume=True)
    before = results_of(settings.output)
    with pytest.raises(UsageError) as raised:
        run(photos, settings, resume=True, models=models)
    assert says in str(raised.value)
    assert results_of(settings.output) == before


@pytest.mark.parametrize(
    "changes", [{"threads": 2}, {"versions": FakeVersions("3")}, {"kernels": FakeKernels("blocked")}]
)
def test_other_threads_software_and_kernels_are_refused(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    monkeypatch.setattr(runs, "find_models", lambda *models, **rest: replace(found_models(*models, **rest), **changes))
    [name] = changes
    with pytest.raises(UsageError, match=f"models {name}"):
        run(photos, settings, resume=True)


@pytest.mark.parametrize("stage", [None, "detect", "segment"])
def test_models_are_found_for_torch_compile_where_a_stage_is_compiled(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    monkeypatch: pytest.MonkeyPatch,
    stage: str | None,
) -> None:
    asked: list[bool] = []

    def found(*models: Any, compiled: bool, **rest: Any) -> FoundModels:
        asked.append(compiled)
        return found_models(*models, **rest)

    monkeypatch.setattr(runs, "find_models", found)
    run(photos, settings, **({stage: replace(getattr(settings, stage), compile=True)} if stage else {}))
    assert asked == [stage is not None]


def test_a_run_from_before_kernels_were_named_is_resumed_with_a_warning(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    path = settings.output / "run.json"
    manifest = json.loads(path.read_text())
    del manifest["models"]["kernels"], manifest["models"]["allocator"]
    path.write_text(json.dumps(manifest))
    run(photos, settings, resume=True)
    [record] = caplog.records
    assert record.getMessage().startswith("this run was begun with an earlier version of grounded-seg")
    assert results_of(settings.output)["annotations.json"] == whole["annotations.json"]
    assert json.loads(path.read_text())["models"]["kernels"] == {"attention": "fused"}


def test_another_allocator_changes_no_result(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(6, KeyboardInterrupt()))
    monkeypatch.setattr(
        runs, "find_models", lambda *models, **rest: replace(found_models(*models, **rest), allocator="kept")
    )
    run(photos, settings, resume=True)
    assert results_of(settings.output)["annotations.json"] == whole["annotations.json"]


def test_a_finished_run_is_neither_located_nor_written_anew(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(photos, settings)
    before = {path.name: path.stat().st_mtime_ns for path in settings.output.iterdir()}
    monkeypatch.setattr(runs, "find_models", None)
    monkeypatch.setattr(runs, "write_results", None)
    run(photos, settings, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in settings.output.iterdir()} == before


@pytest.fixture
def lost(photos: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of images whose share is gone, as long as they are in this set."""
    names: set[str] = set()
    real = PIL.Image.open

    def open_image(path: Path, *arguments: Any, **options: Any) -> PIL.Image.Image:
        if path.name in names:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(PIL.Image, "open", open_image)
    return names


@pytest.mark.parametrize("n_done", [7, 10, N_LINES])
def test_images_out_of_reach_are_asked_again(
    detector: ColourDetector,
    photos: Path,
    settings: RunSettings,
    whole: dict[str, bytes],
    lost: set[str],
    n_done: int,
) -> None:
    lost |= {"01.png", "04.png", "06.png"}
    if n_done < N_LINES:
        with pytest.raises(KeyboardInterrupt):
            run(photos, settings, Stopper(n_done, KeyboardInterrupt()))
    else:
        assert run(photos, settings).exit_code == 1
    skipped = [line for line in read_lines(settings.output / "results.jsonl") if line["status"] == "skipped"]
    assert [(line["file_name"], line["error"]) for line in skipped][:2] == [
        ("01.png", "ImageAccessError"), ("04.png", "ImageAccessError"),
    ]  # fmt: skip
    assert "Input/output error" in str(skipped[0]["reason"])
    before = (settings.output / "results.jsonl").read_bytes()
    # While it is being done again, the old journal stays.
    lost.clear()
    with pytest.raises(KeyboardInterrupt):
        run(photos, settings, Stopper(1, KeyboardInterrupt()), resume=True)
    assert (settings.output / "results.jsonl").read_bytes() == before
    detector.batch_sizes.clear()
    report = run(photos, settings, resume=True)
    assert results_of(settings.output) == whole
    assert (report.n_done, report.n_skipped, report.n_instances) == (N_IMAGES, 1, N_IMAGES)
    # Each in its old batch, and no other batch.
    assert detector.batch_sizes == [4] * (2 if n_done == N_LINES else 4)


def test_an_image_that_stays_out_of_reach_stays_skipped(
    detector: ColourDetector, photos: Path, settings: RunSettings, lost: set[str]
) -> None:
    lost.add("07.png")
    run(photos, settings)
    before = results_of(settings.output)
    report = run(photos, settings, resume=True)
    assert (report.exit_code, report.n_skipped) == (1, 2)
    assert results_of(settings.output) == before


def test_a_truncated_image_is_damaged_for_good(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    image.save(photos / "03.jpg")
    (photos / "03.jpg").write_bytes((photos / "03.jpg").read_bytes()[:-900])
    run(photos, settings)
    detector.batch_sizes.clear()
    run(photos, settings, resume=True)
    assert detector.batch_sizes == []
    [line] = [one for one in read_lines(settings.output / "results.jsonl") if one["file_name"] == "03.jpg"]
    assert line["error"] == "ImageError"


def test_a_run_with_too_many_open_files_can_be_resumed(
    detector: ColourDetector, photos: Path, settings: RunSettings, whole: dict[str, bytes]
) -> None:
    class Full(Silent):
        """After the first image, leaves the process no file but those that are open."""

        def finished_image(self, line: JournalLine) -> None:
            if resource.getrlimit(resource.RLIMIT_NOFILE) != limits:
                return
            next_file = os.dup(0)
            os.close(next_file)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_file, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with pytest.raises(OutputError):
            run(photos, settings, Full(), save=frozenset())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    errors = [line["error"] for line in read_lines(settings.output / "results.jsonl")]
    assert "ImageAccessError" in errors
    run(photos, settings, resume=True, save=frozenset())
    names = ("annotations.json", "results.jsonl")
    assert {name: results_of(settings.output)[name] for name in names} == {name: whole[name] for name in names}
