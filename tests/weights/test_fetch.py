"""Fetching: only the right bytes ever get the file's name, and a failure says what to do instead."""

import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from stand_in_hub import StandInHub

from grounded_seg.errors import WeightsError
from grounded_seg.weights import retries
from grounded_seg.weights.fetch import cache_folder, fetch
from grounded_seg.weights.files import sha256_of_file, sha256_of_weights
from grounded_seg.weights.locate import is_on_disk, locate
from grounded_seg.weights.presets import SegmenterFile
from grounded_seg.weights.sources import HubSource, LocalSource, PublishedSource

CONTENT = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class StandIn(BaseHTTPRequestHandler):
    """Serves one file well, and cut off, without its length, or not at all."""

    requests: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path != "/unknown-length":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 1000 if self.path == "/cut-off" else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # A proxy of the environment isn't asked about this machine.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    StandIn.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sam_vit_b_01ec64.pth"


class Unreachable:
    """Stands in for what opens addresses."""

    def open(self, *_: object, **__: object) -> None:
        raise OSError("no connection\nand a long story")


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("path", ["/whole", "/unknown-length"])
def test_fetched_once_then_found(server: str, destination: Path, path: str) -> None:
    for _ in range(2):
        assert fetch(server + path, SHA256, destination) == destination
    assert destination.read_bytes() == CONTENT
    assert files_in(destination.parent) == [destination.name]
    assert StandIn.requests == [path]


def test_progress_counts_to_the_whole(server: str, destination: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(server + "/whole", SHA256, destination, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) >= 3
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_progress_does_not_know_an_unsaid_length(server: str, destination: Path) -> None:
    seen: list[int | None] = []
    fetch(server + "/unknown-length", SHA256, destination, progress=lambda _, total: seen.append(total))
    assert set(seen) == {None}


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("/missing", SHA256, r"could not be fetched \(HTTP Error 404"),
        ("/cut-off", SHA256, "could not be fetched|arrived damaged"),
        ("/whole", "0" * 64, f"its sha256 is {SHA256}"),
    ],
)
def test_a_failed_fetch_leaves_nothing_and_says_what_to_do(
    server: str, destination: Path, path: str, sha256: str, reason: str
) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        fetch(server + path, sha256, destination)
    message = str(caught.value)
    assert f"Download {server}{path} and put it at {destination}" in message
    assert "--preset demo, which works offline" in message
    assert "\n" not in message
    assert files_in(destination.parent) == []


def test_an_unreachable_server_is_one_line(server: str, destination: Path) -> None:
    # Nothing listens on port 9 of this machine (the discard service).
    with pytest.raises(WeightsError, match=r"sam_vit_b_01ec64\.pth could not be fetched \(.*--preset demo"):
        fetch("http://127.0.0.1:9/sam", SHA256, destination)
    assert files_in(destination.parent) == []


def test_an_interruption_leaves_nothing(server: str, destination: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server + "/whole", SHA256, destination, progress=interrupt)
    assert files_in(destination.parent) == []


def test_offline_never_asks(server: str, destination: Path) -> None:
    with pytest.raises(WeightsError, match="is not on this disk, and --offline forbids fetching it"):
        fetch(server + "/whole", SHA256, destination, offline=True)
    destination.parent.mkdir()
    destination.write_bytes(CONTENT)
    assert fetch(server + "/whole", SHA256, destination, offline=True) == destination
    assert StandIn.requests == []


def test_a_file_put_there_by_hand_is_checked_and_kept(server: str, destination: Path) -> None:
    destination.parent.mkdir()
    destination.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"its sha256 differs\. Delete it"):
        fetch(server + "/whole", SHA256, destination)
    assert destination.read_bytes() == b"something else"
    assert StandIn.requests == []


def test_a_cache_that_can_not_be_made_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch(server + "/whole", SHA256, tmp_path / "file" / "sam.pth")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("GROUNDED_SEG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/grounded-seg")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/grounded-seg")
    monkeypatch.setenv("GROUNDED_SEG_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()


def test_hash_of_a_file_by_hand(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_file(tmp_path / "abc") == sha256_of_weights(tmp_path / "abc") == expected


def test_hash_of_a_folder_is_that_of_its_weights_alone(tmp_path: Path) -> None:
    def made(name: str, files: dict[str, bytes]) -> str:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_bytes(content)
        return sha256_of_weights(tmp_path / name)

    def index(*names: str) -> dict[str, bytes]:
        return {"model.safetensors.index.json": json.dumps({"weight_map": {name: name for name in names}}).encode()}

    both = {"b.safetensors": b"2", "a.safetensors": b"1", **index("b.safetensors", "a.safetensors")}
    first = made("first", both)
    # As the shell gives it: printf 1 > a.safetensors; printf 2 > b.safetensors; sha256sum *.safetensors | sha256sum
    assert first == "50d4ecb3bd320a24dfab96bb4fa414109297b566a71e28494cd075813f8f70d1"
    assert made("config", {**both, "config.json": b"{}", "pytorch_model.bin": b"older", "c.safetensors": b"4"}) == first
    assert made("changed", {**both, "a.safetensors": b"3"}) != first
    renamed = {"b.safetensors": b"2", "c.safetensors": b"1", **index("b.safetensors", "c.safetensors")}
    assert made("renamed", renamed) != first
    assert made("pickled", {"pytorch_model.bin": b"1"}) != made("other pickle", {"pytorch_model.bin": b"2"})


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_weights_to_hash(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=f"No weights at .*{name}"):
        sha256_of_weights(tmp_path / name)


def test_a_published_file_is_located_in_the_cache(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDED_SEG_CACHE", str(tmp_path))
    source = PublishedSource(SegmenterFile(name="vit_b", url=server + "/sam.pth", sha256=SHA256))
    found = locate(source)
    assert (found.path, found.name, found.revision, found.sha256) == (tmp_path / "sam.pth", "sam.pth", None, SHA256)


def test_a_local_file_of_another_hash_is_taken_with_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tuned.pth").write_bytes(b"abc")
    with caplog.at_level(logging.INFO, logger="grounded_seg"):
        found = locate(LocalSource(path=tmp_path / "tuned.pth", name="tuned.pth"))
    assert found.sha256 == sha256_of_file(tmp_path / "tuned.pth")
    assert "none of the published Segment Anything files" in caplog.text


def test_a_hub_snapshot_is_located_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    (tmp_path / commit).mkdir()
    (tmp_path / commit / "model.safetensors").write_bytes(b"weights")
    asked: dict[str, object] = {}

    def snapshot(repo_id: str, **options: object) -> str:
        asked.update(repo_id=repo_id, **options)
        return str(tmp_path / commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = locate(HubSource(repo_id="someone/model", revision="main"), offline=True)
    assert (found.path, found.name, found.revision) == (tmp_path / commit, "someone/model", commit)
    assert found.sha256 == sha256_of_weights(tmp_path / commit)
    assert asked == {
        "repo_id": "someone/model",
        "revision": "main",
        "allow_patterns": ["*.json", "*.txt", "*.safetensors"],
        "local_files_only": True,
    }


@pytest.mark.parametrize("adds_native", [False, True])
def test_a_pickle_is_fetched_only_where_there_is_nothing_better(hub: StandInHub, adds_native: bool) -> None:
    older = {"config.json": b"{}", "pytorch_model.bin": b"weights", "modeling_florence2.py": b"raise SystemExit"}
    hub.add("someone/older", older | ({"model.safetensors": b"better"} if adds_native else {}))
    found = locate(HubSource(repo_id="someone/older", revision="main"))
    assert found.sha256 == sha256_of_weights(found.path)
    weights = "model.safetensors" if adds_native else "pytorch_model.bin"
    assert {path.name for path in found.path.iterdir()} == {"config.json", weights}
    assert not any(".py" in path for path in hub.paths())


@pytest.mark.parametrize(("offline", "where"), [(True, "--offline forbids fetching the rest"), (False, "on the hub")])
def test_a_snapshot_without_weights_is_none(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, where: str
) -> None:
    (tmp_path / "config.json").write_text("{}")
    if offline:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    hub.add("someone/model", {"config.json": b"{}"})
    source = HubSource(repo_id="someone/model", revision="main")
    assert not is_on_disk(source)
    with pytest.raises(WeightsError, match=r"neither \.safetensors nor pytorch_model\.bin") as caught:
        locate(source, offline=offline)
    assert where in str(caught.value)
    assert "Download https://huggingface.co/someone/model elsewhere" in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    hub.add("someone/model", {"config.json": b"{}", "model.safetensors": b"weights"})
    assert is_on_disk(source) == offline
    found = locate(source, offline=offline).path
    assert (found / "model.safetensors").read_bytes() == b"weights"
    assert is_on_disk(source)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_model_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    def snapshot(repo_id: str, **options: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(retries, "opener", lambda: Unreachable())
    with pytest.raises(WeightsError) as caught:
        locate(HubSource(repo_id="someone/model", revision="main"), offline=offline)
    message = str(caught.value)
    assert "someone/model" in message
    assert ("--offline forbids" if offline else "(no connection)") in message
    assert "https://huggingface.co/someone/model" in message
    assert "--preset demo, which works offline" in message
    assert "\n" not in message
