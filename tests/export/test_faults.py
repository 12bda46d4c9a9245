"""Exports on disks that fail, beside another export, with long names, and on a machine without OpenCV's library."""

import json
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from click.testing import CliRunner, Result
from conftest import Paint
from fakes import ColourDetector, Silent
from paths import ROOT

from grounded_seg.cli import main
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.export.writer import unique_names
from grounded_seg.export.yolo import YoloWriter
from grounded_seg.runs.run import run_images
from grounded_seg.settings import RunSettings

LONG = "ü" * 64


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A COCO file of one image with one box, the image beside it."""
    PIL.Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    return write_source(tmp_path, ["a.png"])


def write_source(folder: Path, file_names: list[str], n_labels: int = 1) -> Path:
    images = [{"id": number, "file_name": name, "width": 20, "height": 10} for number, name in enumerate(file_names, 1)]
    annotation = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 4], "area": 20, "iscrowd": 0, "segmentation": []}
    document = {
        "info": {"description": "test"},
        "categories": [{"id": 1, "name": "car"}],
        "images": images,
        "annotations": [{"id": number, **annotation} for number in range(1, n_labels + 1)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def settings(source: Path, kind: LabelFormat = LabelFormat.YOLO, **options: Any) -> ExportSettings:
    return ExportSettings(source, source.parent / "out", kind, **options)


def copying(source: Path) -> Result:
    options = ["--to", "yolo", "--copy-images", "--images", str(source.parent), "-o", str(source.parent / "out")]
    return CliRunner().invoke(main, ["export", str(source), *options])


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as on a disk that gets full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that can be opened and not read")
def test_an_image_that_cannot_be_read_is_blamed_itself(source: Path) -> None:
    image = source.parent / "a.png"
    image.unlink()
    # Its first bytes can't be read: an input/output error, as of a bad disk.
    image.symlink_to("/proc/self/mem")
    done = copying(source)
    assert done.exit_code == 3
    assert done.stderr.startswith(f"error: {image} can't be read (Input/output error); ")
    assert len(done.stderr.splitlines()) == 1
    assert not (source.parent / "out").exists()


def test_an_image_that_cannot_be_opened_is_blamed_itself(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Path.open

    def forbidden(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if path.name == "a.png" and "r" in mode:
            raise PermissionError(13, "Permission denied", str(path))
        return before(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputError, match=r"a\.png can't be read \(Permission denied\)"):
        export_labels(settings(source, pictures=Pictures.COPY, images=source.parent))


def test_a_disk_that_gets_full_blames_the_destination(source: Path) -> None:
    (source.parent / "a.png").write_bytes(bytes(100_000))
    with full_disk(50_000):
        done = copying(source)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {source.parent / 'out'} can't be written (File too large); make room")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in source.parent.iterdir()) == ["a.png", "annotations.json"]


def test_a_link_that_cannot_be_made_blames_the_destination(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(target), None, str(path))

    monkeypatch.setattr(Path, "symlink_to", forbidden)
    place = source.parent / "out" / "images" / "train" / "a.png"
    with pytest.raises(OutputError, match=rf"^{place} can't be written \(Operation not permitted\)"):
        export_labels(settings(source, pictures=Pictures.LINK, images=source.parent))


@pytest.mark.parametrize("kind", list(LabelFormat))
def test_a_full_disk_is_one_line_in_every_format(tmp_path: Path, kind: LabelFormat) -> None:
    source = write_source(tmp_path, ["a.png"], n_labels=400)
    form = MaskForm.RLE if kind is LabelFormat.MASKS else MaskForm.NONE
    # A class picture is small, so for that format the disk is full from the start.
    with (
        full_disk(50 if kind is LabelFormat.MASKS else 2_000),
        pytest.raises(OutputError, match=r"out.*File too large"),
    ):
        export_labels(settings(source, kind, form=form))
    assert not (tmp_path / "out").exists()


def test_a_full_temporary_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sqlite3.connect

    def small(name: str) -> sqlite3.Connection:
        connection = before(name)
        connection.execute("PRAGMA max_page_count = 4")
        return connection

    monkeypatch.setattr("sqlite3.connect", small)
    source = write_source(tmp_path, ["a.png"], n_labels=400)
    done = CliRunner().invoke(main, ["export", str(source), "--to", "coco", "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: the temporary database can't be written (database or disk is full); ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("is_there", [False, True])
def test_a_second_export_into_the_same_folder_harms_no_running_one(
    source: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    output = source.parent / "out"
    if is_there:
        output.mkdir()
    close, refused = YoloWriter.close, []

    def close_beside_another(writer: YoloWriter) -> None:
        with pytest.raises(UsageError, match=r"out is being written by another process; name another folder"):
            export_labels(settings(source, LabelFormat.VOC))
        refused.append(True)
        close(writer)

    monkeypatch.setattr(YoloWriter, "close", close_beside_another)
    export_labels(settings(source))
    assert refused == [True]
    assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()) == [
        "data.yaml",
        "labels/train/a.txt",
    ]
    assert sorted(path.name for path in source.parent.iterdir()) == ["a.png", "annotations.json", "out"]


@pytest.mark.parametrize("is_there", [False, True])
def test_what_a_killed_export_left_is_removed_by_the_next(source: Path, is_there: bool) -> None:
    output = source.parent / "out"
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from grounded_seg.files import whole_folder\n"
        "with whole_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'left.json').touch()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    if is_there:
        output.mkdir()
    killed = subprocess.run([sys.executable, "-c", program, str(output)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert list(source.parent.rglob("left.json")) != []
    export_labels(settings(source))
    assert sorted(path.name for path in output.iterdir()) == ["data.yaml", "labels"]
    assert sorted(path.name for path in source.parent.iterdir()) == ["a.png", "annotations.json", "out"]


@pytest.mark.parametrize("kind", [LabelFormat.YOLO, LabelFormat.VOC, LabelFormat.LABELME, LabelFormat.MASKS])
def test_long_names_are_shortened_and_stay_apart(tmp_path: Path, kind: LabelFormat) -> None:
    # Flattened, these pass the 255 bytes of a file system; the last name fits, but not with another ending.
    names = [f"{LONG}/{LONG}/{part}.jpg" for part in ("a", "b")] + ["c" * 251 + ".jpg"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (20, 10)).save(tmp_path / "in" / name)
    source = write_source(tmp_path, names)
    export_labels(settings(source, kind, pictures=Pictures.COPY, images=tmp_path / "in"))
    pictures = [path for path in (tmp_path / "out").rglob("*.jpg") if path.is_file()]
    assert len(pictures) == 3
    if kind is not LabelFormat.MASKS:
        labels = [path for path in (tmp_path / "out").rglob("*.*") if path.suffix in (".txt", ".xml", ".json")]
        assert {path.stem for path in pictures} <= {path.stem for path in labels}


def test_names_that_fit_stay_as_they_are() -> None:
    fits, over = "c" * 251 + ".jpg", "c" * 252 + ".jpg"
    assert unique_names([fits], ".txt", flat=True) == {fits: fits}
    [with_longer_ending] = unique_names([fits], ".json", flat=False).values()
    assert with_longer_ending.startswith("c" * 200)
    assert len(with_longer_ending) == 254
    [shortened] = unique_names([over], ".txt", flat=True).values()
    assert (len(shortened), shortened[-4:]) == (255, ".jpg")
    # The same name twice gives two: a number is part of what is hashed.
    assert len(set(unique_names([over, over.upper()], ".txt", flat=True).values())) == 2


@pytest.mark.parametrize(
    "arguments", [["--to", "coco", "--seg", "rle"], ["--to", "yolo", "--seg", "none"], ["--to", "voc"]], ids=" ".join
)
def test_boxes_and_run_lengths_need_no_opencv(source: Path, arguments: list[str]) -> None:
    done = without_opencv("export", str(source), *arguments, "-o", str(source.parent / "out"))
    assert (done.returncode, done.stderr) == (0, "")


def test_runs_are_merged_without_opencv(detector: ColourDetector, paint: Paint, tmp_path: Path) -> None:
    runs = [tmp_path / "1", tmp_path / "2"]
    for run in runs:
        photo = paint(f"photos/{run.name}.png", red=(0, 0, 5, 9))
        run_images(PromptSet(("red car",), ("red",)), [photo], RunSettings(run), Silent())
    done = without_opencv("merge-runs", *map(str, runs), "-o", str(tmp_path / "merged"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads((tmp_path / "merged" / "annotations.json").read_text())["annotations"]) == 2


def test_a_picture_without_opencv_is_one_line(source: Path) -> None:
    done = without_opencv("export", str(source), "--to", "masks", "-o", str(source.parent / "out"))
    assert done.returncode == 5
    [line] = done.stderr.splitlines()
    assert line.startswith("error: OpenCV can't be loaded")
    assert "libgl1" in line


def without_opencv(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.modules['cv2'] = None\nfrom grounded_seg.cli import main\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
