"""Folders as they come: every kind of broken file, and names that nobody thought of."""

import errno
import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from conftest import Paint
from fakes import ColourDetector

from grounded_seg.cli import main

N_GOOD = 20


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG that says it is huge, and holds no pixel of it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked_header = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + checked_header + struct.pack(">I", 1000) + b"IDAT" + bytes(10)


def break_things(folder: Path) -> int:
    """Put one of each kind of broken file into a folder; gives how many."""
    png = encoded("PNG")
    contents = {
        "empty.jpg": b"",
        "text.png": b"Dear diary",
        "cut.jpg": encoded("JPEG")[:2000],
        "cut.bmp": encoded("BMP")[:-50],
        "cut.webp": encoded("WEBP")[:2000],
        "cut.tif": encoded("TIFF")[:7000],
        "cut.gif": encoded("GIF")[:900],
        "broken.png": png[:60] + bytes(200) + png[260:],
        "huge.png": huge_png(30_000, 30_000),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "nothing.png").symlink_to(folder / "gone.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    # Not inputs: folders aren't images, and links to folders aren't followed.
    (folder / "folder.png").mkdir()
    (folder / "up.png").symlink_to(folder, target_is_directory=True)
    return len(contents) + 3


@pytest.fixture
def photos(paint: Paint) -> Path:
    return paint("photos/00.png", red=(2, 3, 12, 9)).parent


def run(photos: Path, output: Path, *options: str) -> tuple[int, str, str]:
    arguments = ["run", "red car", str(photos), "-o", str(output), "--batch-size", "4", *options]
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_broken_files_are_skipped_each_with_its_reason(
    detector: ColourDetector, photos: Path, paint: Paint, tmp_path: Path
) -> None:
    for number in range(1, N_GOOD):
        paint(f"photos/{number:02}.png", red=(2, 3, 12, 9))
    n_broken = break_things(photos)
    code, out, err = run(photos, tmp_path / "out")
    assert code == 1
    assert err.startswith(f"error: {n_broken} of {N_GOOD + n_broken} images were skipped")
    lines = [json.loads(text) for text in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    skipped = [line for line in lines if line["status"] == "skipped"]
    assert len(lines) - len(skipped) == N_GOOD
    assert len(skipped) == n_broken == 12
    assert {line["error"] for line in skipped} == {"ImageError"}
    # The reason itself, without the path in front of it.
    reasons = {line["file_name"]: re.sub(r"^'.*?' ", "", line["reason"]) for line in skipped}
    assert len(set(reasons.values())) == n_broken, reasons
    assert "30000 x 30000 px, the limit is 178956970 pixels" in reasons["huge.png"]
    for name, reason in reasons.items():
        assert f"skipped {name}: ImageError: " in out
        assert reason in out
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]) == N_GOOD


def test_only_broken_files_give_an_empty_coco_file(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    (photos / "00.png").unlink()
    n_broken = break_things(photos)
    code, _, err = run(photos, tmp_path / "out")
    assert code == 1
    assert f"{n_broken} of {n_broken} images" in err
    coco = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert (coco["images"], coco["annotations"]) == ([], [])
    assert coco["categories"] == [{"id": 1, "name": "red car"}]
    assert CliRunner().invoke(main, ["validate", str(tmp_path / "out" / "annotations.json")]).exit_code == 0


def test_any_name_gets_its_results_and_pictures(
    detector: ColourDetector, photos: Path, paint: Paint, tmp_path: Path
) -> None:
    names = [
        "same.png", "a/same.png", "b/same.png", "a b/c d.png", "line\nbreak.png", "ü/日本.png", "'\"$(x)`;.png",
        "-o.png", "@list.png", "CON.png", "a.png", "a.png.jpg.png/a.png", "a.png.jpg/a.png", "a.png.jpg_/a.png",
        "a.png.001.png/b.png", "a.bmp", "\udcff.png", f"{'x' * 250}.png", "%2F.png", "[1].png", "~/x.png",
    ]  # fmt: skip
    for name in names:
        paint(f"photos/{name}", red=(2, 3, 12, 9))
    code, _, err = run(photos, tmp_path / "out", *(f"--save={what}" for what in ("overlay", "masks", "crops")))
    assert (code, err) == (0, "")
    lines = [json.loads(text) for text in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == sorted([*names, "00.png"])
    for kind in ("overlays", "masks", "crops"):
        pictures = [path for path in (tmp_path / "out" / kind).rglob("*") if path.is_file()]
        assert len(pictures) == len(names) + 1, kind
    # Again, beside its own pictures, and in the folder itself.
    before = (tmp_path / "out" / "annotations.json").read_bytes()
    code, _, _ = run(photos, photos / "out")
    assert (photos / "out" / "annotations.json").read_bytes() == before
    code, _, _ = run(photos, photos / "out", "--resume")
    assert code == 0


def test_a_limit_of_pixels_is_told_before_decoding(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    code, out, _ = run(photos, tmp_path / "out", "--max-pixels", "1000")
    assert code == 1
    assert "40 x 30 px, the limit is 1000 pixels" in out
    assert "--max-pixels" in out
    code, _, err = run(photos, tmp_path / "no", "--max-pixels", "0")
    assert code == 2
    assert "max-pixels is 0" in err


def test_a_list_is_a_path(detector: ColourDetector, photos: Path, paint: Paint, tmp_path: Path) -> None:
    paint("photos/01.png")
    (tmp_path / "list.txt").write_text(f"{photos / '00.png'}\n{photos / 'gone.png'}\n")
    result = CliRunner().invoke(main, ["run", "red car", f"@{tmp_path / 'list.txt'}", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "no file is at" in result.stdout
    lines = [json.loads(text) for text in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(line["file_name"], line["status"]) for line in lines] == [("00.png", "done"), ("gone.png", "skipped")]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["paths"] == [f"@{tmp_path / 'list.txt'}"]


def test_a_full_disk_is_one_line_that_says_how_to_go_on(
    detector: ColourDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("grounded_seg.runs.pictures.save_picture", full)
        code, out, err = run(photos, tmp_path / "out")
    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'out'} can't be written (No space left on device)")
    assert "to resume, run the same command with --resume" in line
    code, out, err = run(photos, tmp_path / "out", "--resume")
    assert (code, err) == (0, "")
    assert "1 found in 1 image" in out
    # Again there is nothing new to show in a table.
    code, again, _ = run(photos, tmp_path / "out", "--resume")
    assert code == 0
    assert again.strip().startswith("1 found in 1 image")
