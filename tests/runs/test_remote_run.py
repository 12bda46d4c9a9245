"""Whole runs over images in storage elsewhere and in tars: the same bytes as on disk, resumed, uploaded."""

import io
import json
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, Web, picture, s3_environment
from click.testing import CliRunner
from fakes import ColourDetector, Silent
from paths import TESTS

from grounded_seg.api.commands import run_images as run_by_name
from grounded_seg.cli import main
from grounded_seg.coco.schema import JournalLine
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import InputError, UploadError, UsageError
from grounded_seg.images.given import given_from
from grounded_seg.images.remote import storage
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.runs import upload
from grounded_seg.runs.run import run_images
from grounded_seg.settings import RunSettings

RED = prompts_from(["red car"])
N_IMAGES = 11


class Stopper(Silent):
    """Ends a run after so many images."""

    def __init__(self, n_images: int) -> None:
        self.n_left = n_images

    def finished_image(self, line: JournalLine) -> None:
        self.n_left -= 1
        if self.n_left == 0:
            raise KeyboardInterrupt


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(output=tmp_path / "out", batch_size=4)


def image(number: int) -> bytes:
    return picture(red=(0, 0, 5 + number, 9))


@pytest.fixture
def photos(bucket: Bucket, tmp_path: Path) -> Bucket:
    """The same images in a bucket and in the folder `local`."""
    for number in range(N_IMAGES):
        name = f"{number:02}.png" if number % 2 else f"sub/{number:02}.png"
        path = tmp_path / "local" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(number))
        bucket.put(f"photos/{name}", image(number))
    return bucket


def run(settings: RunSettings, *texts: str, watcher: Silent | None = None, **changes: Any) -> dict[str, bytes]:
    run_images(RED, [given_from(text) for text in texts], replace(settings, **changes), watcher or Silent())
    return results(replace(settings, **changes).output)


def results(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", ".lock")
    }


def lines(settings: RunSettings) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (settings.output / "results.jsonl").read_text().splitlines()]


def test_images_of_a_bucket_give_the_bytes_of_the_same_on_disk(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path
) -> None:
    local = run(settings, str(tmp_path / "local"), output=tmp_path / "out-local")
    remote = run(settings, f"{photos.url}/photos")
    assert remote == local
    assert len(remote) == N_IMAGES + 2
    manifest = json.loads((settings.output / "run.json").read_text())
    assert (manifest["images"]["root"], manifest["paths"]) == (f"{photos.url}/photos", [f"{photos.url}/photos"])
    # The same images moved to a bucket: their names are what counts.
    assert run(settings, f"{photos.url}/photos", output=tmp_path / "out-local", resume=True) == local


def test_a_run_over_a_bucket_is_resumed(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path
) -> None:
    whole = run(settings, f"{photos.url}/photos", output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(settings, f"{photos.url}/photos", watcher=Stopper(6))
    assert 0 < len(lines(settings)) < N_IMAGES
    assert run(settings, f"{photos.url}/photos", resume=True) == whole


def test_a_killed_run_over_a_bucket_is_resumed(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(settings, f"{photos.url}/photos", output=tmp_path / "whole")
    monkeypatch.setenv("SECONDS_PER_BATCH", "2")
    command = [sys.executable, str(TESTS / "fake_run.py"), "run", "red car", f"{photos.url}/photos"]
    journal = settings.output / "results.jsonl"
    with subprocess.Popen(
        [*command, "-o", str(settings.output), "--batch-size", "4"], stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (journal.exists() and journal.read_bytes()):
            time.sleep(0.01)
        process.kill()
        assert process.stderr is not None
        told = process.stderr.read().decode()
    assert 0 < len(lines(settings)) < N_IMAGES, told
    assert run(settings, f"{photos.url}/photos", resume=True) == whole


def test_a_missing_key_is_skipped_and_one_out_of_reach_is_asked_again(
    detector: ColourDetector, web: Web, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", ())
    web.pages = {f"/p/{number}.png": image(number) for number in range(3)}
    listed = tmp_path / "list"
    listed.write_text("".join(f"{web.url}/p/{name}.png?sig=SECRET\n" for name in ("0", "1", "2", "gone")))
    whole = run(settings, f"@{listed}", output=tmp_path / "whole")
    web.statuses = [503]
    run(settings, f"@{listed}", batch_size=4)
    told = [(line["error"], line["file_name"]) for line in lines(settings) if line["status"] == "skipped"]
    assert len(told) == 2
    assert ("ImageError", "gone.png") in told
    assert {error for error, name in told if name != "gone.png"} == {"ImageAccessError"}
    assert run(settings, f"@{listed}", resume=True) == whole
    for path in (settings.output, tmp_path / "whole"):
        written = b"".join(one.read_bytes() for one in path.rglob("*") if one.is_file())
        assert b"SECRET" not in written
        assert b"sig=" not in written


def test_a_missing_key_of_a_list_is_skipped_with_its_reason(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path
) -> None:
    keys = ("01.png", "gone.png", "sub/00.png")
    (tmp_path / "list").write_text("\n".join(f"{photos.url}/photos/{key}" for key in keys))
    run(settings, f"@{tmp_path / 'list'}")
    assert [(line["file_name"], line["error"]) for line in lines(settings)] == [
        ("01.png", None), ("gone.png", "ImageError"), ("sub/00.png", None),
    ]  # fmt: skip
    assert lines(settings)[1]["reason"] == f"nothing is at '{photos.url}/photos/gone.png'; check the address"


# --- tars ----------------------------------------------------------------------------------------------------------


def shard(first: int, n_images: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for number in range(first, first + n_images):
            info = tarfile.TarInfo(f"{number:02}.png")
            info.size = len(image(number))
            tar.addfile(info, io.BytesIO(image(number)))
    return content.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> str:
    for number, first in enumerate((0, 5)):
        (tmp_path / f"s-{number:03}.tar").write_bytes(shard(first, 5))
    return str(tmp_path / "s-{000..001}.tar")


def test_a_batch_never_crosses_a_tar(
    detector: ColourDetector, shards: str, settings: RunSettings, bucket: Bucket, tmp_path: Path
) -> None:
    local = run(settings, shards)
    # Four and one of each, all of one shape.
    assert detector.batch_sizes == [4] * 4
    assert detector.first_images == ["00.png", "04.png", "05.png", "09.png"]
    names = [line["file_name"] for line in lines(settings)]
    assert names[4:6] == ["s-000.tar/04.png", "s-001.tar/05.png"]
    assert "overlays/s-001.tar/05.png.jpg" in local
    for number, first in enumerate((0, 5)):
        bucket.put(f"s-{number:03}.tar", shard(first, 5))
    assert run(settings, f"{bucket.url}/s-*.tar", output=tmp_path / "remote") == local
    with pytest.raises(KeyboardInterrupt):
        run(settings, shards, watcher=Stopper(5), overwrite=True)
    assert run(settings, shards, resume=True) == local


def test_short_batches_beside_tars_stay_apart_when_they_are_asked_again(
    detector: ColourDetector,
    shards: str,
    settings: RunSettings,
    web: Web,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", ())
    web.pages = {"/a.png": image(1), "/b.tar": shard(0, 3), "/c.png": image(2)}
    (tmp_path / "list").write_text("".join(f"{web.url}{path}\n" for path in web.pages))
    whole = run(settings, f"@{tmp_path / 'list'}", output=tmp_path / "whole")
    content, web.pages["/a.png"], web.pages["/c.png"] = dict(web.pages), b"", b""
    run(settings, f"@{tmp_path / 'list'}")
    journal = settings.output / "results.jsonl"
    # As if the two had been out of reach.
    journal.write_text(journal.read_text().replace('"ImageError"', '"ImageAccessError"'))
    web.pages = content
    detector.first_images.clear()
    assert run(settings, f"@{tmp_path / 'list'}", resume=True) == whole
    # Two batches of one, though nothing between them is asked again.
    assert detector.first_images == ["a.png", "c.png"]


def test_python_callers_name_them_alike(detector: ColourDetector, shards: str, photos: Bucket, tmp_path: Path) -> None:
    from fakes import InnerSegmenter

    segmenter = GroundedSegmenter(detector, InnerSegmenter())
    url = f"{photos.url}/photos/01.png"
    assert str(segmenter(url, "red car").path) == url
    found = list(segmenter.stream(f"{photos.url}/photos/", "red car", batch_size=4))
    assert len(found) == N_IMAGES
    assert all(isinstance(one, PromptedResult) and len(one.instances) == 1 for one in found)
    detector.batch_sizes.clear()
    mixed = list(segmenter.stream([url, f"{tmp_path}/s-000.tar", shards], "red car", batch_size=4))
    assert [one.path.name for one in mixed[:3]] == ["01.png", "00.png", "01.png"]
    assert len(mixed) == 1 + 5 + 10
    counts = run_by_name("red car", url, tmp_path / "by-name", upload=f"{photos.url}/results")
    assert (counts.n_done, "results/run.json" in photos.content()) == (1, True)
    with pytest.raises(InputError, match="upload='s3://b/out'"):
        run_by_name("red car", url, "s3://b/out")


# --- upload --------------------------------------------------------------------------------------------------------


def uploaded(bucket: Bucket, prefix: str) -> dict[str, bytes]:
    return {key.removeprefix(prefix): one for key, one in bucket.content().items() if key.startswith(prefix)}


def test_the_finished_run_is_uploaded_and_resuming_it_uploads_what_is_missing(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def counted(path: Path, address: Any) -> None:
        order.append(path.name)
        original(path, address)

    original = upload.put_file
    monkeypatch.setattr("grounded_seg.runs.upload.put_file", counted)
    to = f"{photos.url}/results/one/"
    (settings.output).mkdir()
    (settings.output / "notes.txt").write_text("mine")
    local = run(settings, str(tmp_path / "local"), upload=to)
    del local["notes.txt"]
    there = uploaded(photos, "results/one/")
    manifest = (settings.output / "run.json").read_bytes()
    assert there == local | {"run.json": manifest}
    assert order[-2:] == ["annotations.json", "run.json"]
    assert order.count("run.json") == 1
    assert json.loads(manifest)["settings"]["upload"] == to
    photos.remove("results/one/overlays/01.png.jpg")
    photos.put("results/one/results.jsonl", b"another")
    run(settings, str(tmp_path / "local"), upload=to, resume=True)
    assert uploaded(photos, "results/one/") == there


def test_an_upload_that_fails_is_one_line_and_keeps_the_run(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", ())
    original = upload._told_of
    monkeypatch.setattr(
        upload, "_told_of", lambda address: (3, None) if address.name == "results.jsonl" else original(address)
    )
    with pytest.raises(UploadError) as raised:
        run(settings, str(tmp_path / "local"), upload=f"{photos.url}/results")
    assert raised.value.exit_code == 1
    assert "holds another file" in str(raised.value)
    assert f"the run in {settings.output} is finished, and --resume uploads it again" in str(raised.value)
    # What says that all is there comes last.
    assert "results/run.json" not in photos.content()
    monkeypatch.setattr(upload, "_told_of", original)
    whole = run(settings, str(tmp_path / "local"), upload=f"{photos.url}/results", resume=True)
    assert uploaded(photos, "results/").keys() == whole.keys() | {"run.json"}


@pytest.mark.parametrize(
    ("to", "kind", "says"),
    [
        ("https://host/out", UsageError, "must be a folder of a bucket"),
        ("out", UsageError, "must be a folder of a bucket"),
        ("s3://no-such-bucket/out", InputError, "--upload: nothing is at 's3://no-such-bucket'"),
    ],
)
def test_a_wrong_destination_is_told_before_anything_is_done(
    detector: ColourDetector, photos: Bucket, settings: RunSettings, tmp_path: Path, to: str, kind: type, says: str
) -> None:
    with pytest.raises(kind, match=says):
        run(settings, str(tmp_path / "local"), upload=to)
    assert not settings.output.exists()
    assert detector.batch_sizes == []


# --- the command line ----------------------------------------------------------------------------------------------


def test_the_command_line_reads_and_uploads(detector: ColourDetector, photos: Bucket, tmp_path: Path) -> None:
    words = ["run", "red car", f"{photos.url}/photos", "-o", str(tmp_path / "out"), "--upload", f"{photos.url}/up"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stderr) == (0, "")
    assert uploaded(photos, "up/")["results.jsonl"] == (tmp_path / "out" / "results.jsonl").read_bytes()
    refused = CliRunner().invoke(main, ["run", "red car", "a.png", "-o", "s3://b/out"])
    assert refused.exit_code == 3
    assert refused.stderr.strip().endswith("and copy the finished run with --upload s3://b/out")


def test_wrong_credentials_exit_with_3_and_one_line(
    detector: ColourDetector, web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_connections: None
) -> None:
    pytest.importorskip("s3fs")
    s3_environment(monkeypatch, web.url)
    web.statuses = [403] * 9
    done = CliRunner().invoke(main, ["run", "red car", "s3://private/photos/", "-o", str(tmp_path / "out")])
    assert done.exit_code == 3
    [line] = done.stderr.splitlines()
    assert line.startswith("error: 's3://private/photos/': ")
    assert not (tmp_path / "out").exists()
