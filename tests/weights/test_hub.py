"""The hub: what is fetched of a repository, from which commit, and what becomes of every fault on the way."""

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from stand_in_hub import TOKEN, StandInHub, entry

from grounded_seg.errors import WeightsError
from grounded_seg.weights import retries
from grounded_seg.weights.locate import is_on_disk, locate
from grounded_seg.weights.pins import lock_path, read_pins
from grounded_seg.weights.presets import SegmenterFile
from grounded_seg.weights.sources import HubSource, PublishedSource

MODEL = bytes(range(256)) * 20_000
CONFIGS = {
    name: f'{{"name": "{name}"}}'.encode()
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "vocab.json")
} | {"merges.txt": b"c a"}
NATIVE = {**CONFIGS, "model.safetensors": MODEL, "README.md": b"#", "modeling.py": b"raise SystemExit"}
SOURCE = HubSource("someone/model", "main")


def files_below(folder: Path) -> list[str]:
    """Every file of a cache, hidden ones too, by its name."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_configs_and_weights_arrive_without_code(hub: StandInHub) -> None:
    commit = hub.add("someone/model", NATIVE)
    found = locate(SOURCE)
    assert (found.name, found.revision) == ("someone/model", commit)
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == {**CONFIGS, "model.safetensors": MODEL}
    # The hub's own library finds them, by branch and by commit.
    for revision in ("main", commit):
        assert huggingface_hub.snapshot_download("someone/model", revision=revision, local_files_only=True) == str(
            found.path
        )
    assert huggingface_hub.try_to_load_from_cache("someone/model", "config.json") == str(found.path / "config.json")
    assert locate(SOURCE, offline=True) == found


def test_a_large_file_is_asked_about_before_it_is_fetched(hub: StandInHub) -> None:
    commit = hub.add("someone/model", NATIVE)
    locate(SOURCE)
    assert hub.paths("HEAD") == [f"/someone/model/resolve/{commit}/model.safetensors"]


def test_shards_are_those_of_the_index(hub: StandInHub) -> None:
    index = json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}).encode()
    shards = {"a.safetensors": b"a" * 1000, "b.safetensors": b"b" * 1000}
    other = {"notes.safetensors": b"n", "pytorch_model.bin": b"older"}
    hub.add("someone/model", {**CONFIGS, "model.safetensors.index.json": index, **shards, **other})
    names = {path.name for path in locate(SOURCE).path.iterdir()}
    assert names == {*CONFIGS, "model.safetensors.index.json", *shards}
    hub.add("someone/model", {**CONFIGS, "model.safetensors.index.json": index, "a.safetensors": b"a"})
    with pytest.raises(WeightsError, match=r"names b\.safetensors, which isn't there"):
        locate(SOURCE, update=True)


def test_the_commit_is_fixed_until_it_is_moved(hub: StandInHub) -> None:
    first = hub.add("someone/model", NATIVE)
    assert locate(SOURCE).revision == first
    second = hub.add("someone/model", {**NATIVE, "model.safetensors": b"better"})
    hub.seen.clear()
    assert locate(SOURCE).revision == first
    # The hub isn't even asked.
    assert hub.seen == []
    assert locate(SOURCE, update=True).revision == second
    assert locate(SOURCE, offline=True).revision == second
    assert read_pins(lock_path())["someone/model", "main"].commit == second
    assert locate(HubSource("someone/model", first)).revision == first


def test_what_is_missing_of_a_fixed_commit_comes_from_that_commit(hub: StandInHub) -> None:
    first = hub.add("someone/model", NATIVE)
    folder = locate(SOURCE).path
    hub.add("someone/model", {**NATIVE, "config.json": b"newer"})
    (folder / "config.json").resolve().unlink()
    (folder / "config.json").unlink()
    assert locate(SOURCE).revision == first
    assert (folder / "config.json").read_bytes() == CONFIGS["config.json"]


def test_the_cache_will_do_where_the_hub_is_out_of_reach(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    commit = hub.add("someone/model", NATIVE)
    locate(SOURCE)
    lock_path().unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert locate(SOURCE).revision == commit
    assert pauses == []


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("/revision/", {"code": 404, "times": 99}, "HTTP Error 404"),
    ("/revision/", {"code": 401, "times": 99}, "HTTP Error 401.*set HF_TOKEN"),
    ("/revision/", {"code": 500, "times": 99}, "HTTP Error 500"),
    ("/revision/", {"code": 429, "headers": {"Retry-After": "3600"}}, "come back in 60 minutes"),
    ("/revision/", {"change": lambda _: b'{"sha": "main"}'}, "names no commit"),
    ("/revision/", {"change": lambda _: b'{"sha": "../../../../etc"}'}, "names no commit"),
    ("/revision/", {"change": lambda _: b"[" * 100_000}, "isn't JSON"),
    ("/revision/", {"change": lambda _: b"<html>"}, "isn't JSON"),
    ("/tree/", {"change": lambda _: b" " * (9 << 20)}, "longer than 8 MiB"),
    ("/tree/", {"change": lambda _: b"{}"}, "can't be read"),
    ("/tree/", {"change": lambda _: b"[]", "times": 9}, r"neither \.safetensors"),
    ("/tree/", {"change": lambda _: b"[1]"}, "can't be read"),
    ("/tree/", {"change": lambda _: json.dumps([entry("../../x.json", b"{}")]).encode()}, "leaves its folder"),
    ("/tree/", {"change": lambda _: json.dumps([entry("/etc/x.json", b"{}")]).encode()}, "leaves its folder"),
    ("/tree/", {"change": lambda _: json.dumps([entry("..\\x.json", b"{}")]).encode()}, "leaves its folder"),
    ("/tree/", {"change": lambda text: text.replace(b'"size": ', b'"size": -')}, "no hash or size"),
    ("/tree/", {"change": lambda text: text.replace(b'"oid": "', b'"oid": "../')}, "no hash or size"),
    ("/tree/", {"change": lambda text: text.replace(b'"size": ', b'"size": 9999999')}, r"json has \d+ MB"),
    ("config.json", {"code": 404}, "config.json could not be fetched .HTTP Error 404"),
    ("config.json", {"change": lambda data: data.upper()}, "config.json arrived damaged or changed: its hash is"),
    ("config.json", {"change": lambda data: data * 2}, "bytes of it instead of"),
    ("model.safetensors", {"method": "HEAD", "code": 403}, "model.safetensors: HTTP Error 403.*HF_TOKEN"),
    ("/blobs/", {"code": 404}, "model.safetensors could not be fetched .HTTP Error 404"),
    ("/blobs/", {"change": lambda data: data[::-1]}, "model.safetensors arrived damaged or changed: its sha256"),
    ("/blobs/", {"change": lambda data: data + b"more"}, "has 5120004 bytes of it instead of 5120000"),
    ("/blobs/", {"change": lambda data: data[:-4]}, "has 5119996 bytes of it instead of 5120000"),
]


@pytest.mark.parametrize(("path", "how", "says"), FAULTS, ids=[f"{path} {says[:20]}" for path, _, says in FAULTS])
def test_a_fault_is_one_line_and_leaves_nothing_half(
    hub: StandInHub, caches: Path, path: str, how: dict[str, Any], says: str
) -> None:
    hub.add("someone/model", NATIVE)
    hub.fail(path, **how)
    with pytest.raises(WeightsError, match=says) as caught:
        locate(SOURCE)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or use --preset demo, which works offline.")
    assert not is_on_disk(SOURCE)
    assert not any(name.startswith(".") for name in files_below(caches))
    assert not lock_path().exists()
    hub.faults.clear()
    n_seen = len(hub.seen)  # a refused transfer may still be counted by its thread
    assert locate(SOURCE).path.is_dir()
    assert sum(one.n_sent for one in hub.seen[n_seen:] if "/blobs/" in one.path) == len(MODEL)


@pytest.mark.parametrize("path", ["/revision/", "/tree/", "config.json", "/blobs/"])
def test_what_passes_is_waited_for(hub: StandInHub, pauses: list[float], path: str) -> None:
    hub.add("someone/model", NATIVE)
    hub.fail(path, code=500, times=3)
    locate(SOURCE)
    assert pauses == [1, 2, 4]


def test_a_head_that_fails_is_waited_for(hub: StandInHub, pauses: list[float]) -> None:
    hub.add("someone/model", NATIVE)
    hub.fail("model.safetensors", method="HEAD", code=503, times=2)
    locate(SOURCE)
    assert pauses == [1, 2]


@pytest.mark.parametrize("path", ["/revision/", "/blobs/"])
def test_a_server_says_how_long_to_wait(hub: StandInHub, pauses: list[float], path: str) -> None:
    hub.add("someone/model", NATIVE)
    hub.fail(path, code=429, headers={"Retry-After": "7"})
    locate(SOURCE)
    assert pauses == [7]


def test_a_transfer_goes_on_where_it_was_cut(hub: StandInHub, pauses: list[float]) -> None:
    hub.add("someone/model", NATIVE)
    hub.fail("/blobs/", cut_at=0.9)
    found = locate(SOURCE)
    assert (found.path / "model.safetensors").read_bytes() == MODEL
    assert pauses == [1]
    # Not a byte twice.
    assert hub.n_sent("/blobs/") == len(MODEL)


def test_a_second_command_goes_on_where_the_first_gave_up(
    hub: StandInHub, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("someone/model", NATIVE)
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(pauses_s=()))
    hub.fail("/blobs/", cut_at=0.9)
    with pytest.raises(WeightsError, match=r"ended after 4608000 of 5120000 bytes; 4\.6 of 5\.1 MB are kept") as caught:
        locate(SOURCE)
    assert "\n" not in str(caught.value)
    assert not is_on_disk(SOURCE)
    assert locate(SOURCE).sha256
    assert [one.n_sent for one in hub.seen if "/blobs/" in one.path] == [4_608_000, 512_000]
    assert not any(name.startswith(".") for name in files_below(caches))


def test_another_file_since_is_fetched_from_its_start(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = MODEL, MODEL[::-1]
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(pauses_s=()))
    source = PublishedSource(SegmenterFile("vit_b", "https://x/sam.pth", hashlib.sha256(newer).hexdigest()))
    hub.published["sam.pth"] = older
    hub.fail("sam.pth", cut_at=0.5)
    with pytest.raises(WeightsError, match="are kept"):
        locate(source)
    hub.published["sam.pth"] = newer
    assert locate(source).path.read_bytes() == newer


def test_a_first_part_with_other_bytes_is_dropped(hub: StandInHub, caches: Path) -> None:
    hub.published["sam.pth"] = MODEL
    sha256 = hashlib.sha256(MODEL).hexdigest()
    (caches / "own").mkdir()
    part = caches / "own" / ".sam.pth.part"
    part.write_bytes(b"x" * 1000)
    etag = f'"{hashlib.md5(MODEL).hexdigest()}"'  # noqa: S324
    part.with_name(".sam.pth.part.json").write_text(json.dumps({"etag": etag, "digest": sha256}))
    file = SegmenterFile("vit_b", "https://x/sam.pth", sha256, len(MODEL))
    assert locate(PublishedSource(file)).path.read_bytes() == MODEL
    assert hub.n_sent() == 2 * len(MODEL) - 1000
    assert files_below(caches) == ["sam.pth"]


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"etag": 1, "digest": "DIGEST"}', '{"etag": "x", "digest": "y"}'])
def test_a_note_that_can_not_be_used_is_left_aside(hub: StandInHub, caches: Path, note: str) -> None:
    hub.published["sam.pth"] = MODEL
    sha256 = hashlib.sha256(MODEL).hexdigest()
    (caches / "own").mkdir()
    (caches / "own" / ".sam.pth.part").write_bytes(MODEL[:1000])
    (caches / "own" / ".sam.pth.part.json").write_text(note.replace("DIGEST", sha256))
    assert locate(PublishedSource(SegmenterFile("vit_b", "https://x/sam.pth", sha256))).path.read_bytes() == MODEL
    assert hub.n_sent() == len(MODEL)
    assert files_below(caches) == ["sam.pth"]


def test_slow_bytes_are_waited_for_and_a_standstill_is_not(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/model", {**NATIVE, "model.safetensors": MODEL[:1000]})
    hub.fail("/blobs/", chunk=100, pause_s=0.02)
    locate(SOURCE)
    hub.add("someone/model", {**NATIVE, "model.safetensors": MODEL[:2000]})
    hub.fail("/blobs/", chunk=500, pause_s=1.0)
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(pauses_s=(0,), timeout_s=0.3, sleep=lambda _: None))
    found = locate(SOURCE, update=True)
    assert (found.path / "model.safetensors").read_bytes() == MODEL[:2000]
    # What came before the standstill is kept.
    assert [one.headers.get("range") for one in hub.seen if "/blobs/" in one.path][-1] == "bytes=500-"


def test_a_full_disk_is_told_before_anything_comes(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/model", NATIVE)
    usage = shutil.disk_usage("/")._replace(free=(16 << 20) + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"someone/model takes 5 MB, and 17 MB are free in /.*HF_HOME") as caught:
        locate(SOURCE)
    assert "\n" not in str(caught.value)
    assert hub.n_sent("/blobs/") == 0


def test_a_disk_that_fills_up_on_the_way_is_told_at_once(
    hub: StandInHub, caches: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.published["sam.pth"] = MODEL
    file = SegmenterFile("vit_b", "https://x/sam.pth", hashlib.sha256(MODEL).hexdigest(), len(MODEL))
    source = PublishedSource(file)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(WeightsError, match="No space left on device; 5") as caught:
            locate(source)
    assert "\n" not in str(caught.value)
    assert pauses == []
    assert not (caches / "own" / "sam.pth").exists()
    assert locate(source).path.read_bytes() == MODEL
    assert hub.n_sent() == len(MODEL)


def test_the_token_goes_to_the_hub_alone(hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("someone/model", NATIVE)
    hub.needs_token.add("someone/model")
    with pytest.raises(WeightsError, match=r"401.*accept its terms on its page, and set HF_TOKEN"):
        locate(SOURCE)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.seen.clear()
    locate(SOURCE)
    assert {one.headers.get("authorization") for one in hub.seen if one.host == "hub"} == {f"Bearer {TOKEN}"}
    elsewhere = [one for one in hub.seen if one.host == "files"]
    assert elsewhere
    assert not any("authorization" in one.headers for one in elsewhere)


def test_a_list_that_goes_on_at_another_host_is_refused(hub: StandInHub) -> None:
    hub.add("someone/model", NATIVE)
    # Where the stand-in says that its next page is.
    hub.hub_url = hub.files_url
    with pytest.raises(WeightsError, match="goes on at another host"):
        locate(SOURCE)
    assert not any(one.host == "files" for one in hub.seen)


def test_no_network_at_all(monkeypatch: pytest.MonkeyPatch, caches: Path, pauses: list[float]) -> None:
    # Nothing listens on port 9 of this machine (the discard service).
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        WeightsError, match=r"could not be fetched \(.*refused.*--preset demo, which works offline"
    ) as caught:
        locate(SOURCE)
    assert "\n" not in str(caught.value)
    assert pauses == [1, 2, 4, 8, 16]
    assert files_below(caches) == []


@pytest.mark.parametrize("address", ["/srv/mirror", "file:///srv/mirror", "http://[", "mirror.example"])
def test_a_mirror_that_is_no_address_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("GROUNDED_SEG_MIRROR", address)
    file = SegmenterFile("vit_b", "https://x/sam.pth", "0" * 64)
    for source in (SOURCE, PublishedSource(file)):
        with pytest.raises(WeightsError, match=r"could not be fetched \(.* is no address: ") as caught:
            locate(source)
        assert "\n" not in str(caught.value)


def test_several_at_once_fetch_a_file_once(hub: StandInHub) -> None:
    hub.add("someone/model", NATIVE)
    hub.published["sam.pth"] = MODEL
    hub.fail("/blobs/", chunk=1_000_000, pause_s=0.05)
    hub.fail("sam.pth", chunk=1_000_000, pause_s=0.05)
    file = SegmenterFile("vit_b", "https://x/sam.pth", hashlib.sha256(MODEL).hexdigest(), len(MODEL))
    problems: list[BaseException] = []

    def guarded(task: Callable[[], object]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    tasks = [lambda: locate(SOURCE), lambda: locate(PublishedSource(file))] * 3
    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert hub.n_sent("/blobs/") == len(MODEL)
    assert hub.n_sent("sam.pth") == len(MODEL)


def test_progress_counts_all_shards(hub: StandInHub) -> None:
    index = json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}).encode()
    shards = {"a.safetensors": b"a" * 1000, "b.safetensors": b"b" * 3000}
    hub.add("someone/model", {**CONFIGS, "model.safetensors.index.json": index, **shards})
    seen: list[tuple[int, int | None]] = []
    locate(SOURCE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1000, 4000), (4000, 4000)]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 2, "models": {}}', '{"version": 1, "models": {"a/b": {"main": {"commit": "x"}}}}']
)
def test_a_damaged_lock_file_is_named(text: str) -> None:
    lock_path().parent.mkdir(parents=True)
    lock_path().write_text(text)
    with pytest.raises(WeightsError, match=r"models\.lock\.json can't be read .*delete it") as caught:
        locate(SOURCE)
    assert "\n" not in str(caught.value)


def test_a_lock_file_that_can_not_be_written_stops_nobody(
    hub: StandInHub, caches: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("someone/model", NATIVE)
    (caches / "own").touch()
    with caplog.at_level(logging.WARNING):
        assert locate(SOURCE).path.is_dir()
    assert "the commit isn't fixed" in caplog.text
