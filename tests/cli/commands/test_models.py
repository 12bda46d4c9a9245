"""`models fetch|verify|remove|list`, and `run` on an empty cache, against a hub on this machine."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import Paint
from older_florence import older_folder
from paths import ROOT
from stand_in_hub import StandInHub
from tiny_florence import make_network, make_processor, save_adapter, save_tiny_florence
from tiny_sam import SMALL, random_sam
from tiny_transformers_sam import build, processor_of

from grounded_seg.cli import main
from grounded_seg.segment.sam.build import SamConfig
from grounded_seg.weights import presets, retries
from grounded_seg.weights.pins import lock_path, read_pins

ID = "florence-community/Florence-2-base-ft"
SAM = "sam_vit_b_01ec64.pth"


def grounded(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def error_of(result: Result) -> str:
    """The one line on stderr."""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def as_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def florence(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a native repository, with those that a slow tokenizer has beside them."""
    files = as_files(save_tiny_florence(tmp_path_factory.mktemp("native")))
    more = {"vocab.json": b"{}", "merges.txt": b"#", "special_tokens_map.json": b"{}", "added_tokens.json": b"{}"}
    image = make_processor().image_processor.to_json_string().encode()
    return {"README.md": b"# model", "preprocessor_config.json": image, **more, **files}


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sam") / SAM
    torch.save(random_sam().state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def published(
    hub: StandInHub, florence: dict[str, bytes], sam: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StandInHub]:
    """The hub with `base-ft` at tiny size, which this package takes for the published one."""
    hub.add(ID, florence)
    hub.published[SAM] = sam
    text = presets._PRESETS_FILE.read_text(encoding="utf-8")
    vit_b = presets.preset_table().segmenters["vit_b"]
    text = text.replace(vit_b.sha256, hashlib.sha256(sam).hexdigest()).replace("375_042_383", str(len(sam)))
    (tmp_path / "presets.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(presets, "_PRESETS_FILE", tmp_path / "presets.toml")
    monkeypatch.setattr(SamConfig, "vit_b", lambda: SMALL)
    monkeypatch.chdir(tmp_path)
    presets.preset_table.cache_clear()
    yield hub
    presets.preset_table.cache_clear()


def run(*options: str | Path) -> Result:
    return grounded("run", "red car", "a.png", "--device", "cpu", "--dtype", "float32", *options)


def test_a_run_on_an_empty_cache_fetches_once(published: StandInHub, paint: Paint, tmp_path: Path) -> None:
    paint("a.png", red=(2, 3, 12, 9))
    done = run("--preset", "base-ft", "-o", "first")
    assert done.exit_code == 0, done.stderr
    n_files = len(published.paths())
    published.seen.clear()
    again = run("--preset", "base-ft", "-o", "second")
    assert again.exit_code == 0, again.stderr
    assert (n_files, published.seen) == (16, [])
    offline = run("--preset", "base-ft", "-o", "third", "--offline")
    assert offline.exit_code == 0, offline.stderr
    written = [json.loads(Path(name, "annotations.json").read_text()) for name in ("first", "second", "third")]
    assert written[0] == written[1] == written[2]
    models = json.loads(Path("first/run.json").read_text())["models"]
    assert models["detector"]["revision"] == published.branches[ID, "main"]
    assert models["segmenter"]["sha256"] == hashlib.sha256(published.published[SAM]).hexdigest()


def test_what_is_fetched_is_printed_with_its_commit_and_fixed(published: StandInHub) -> None:
    done = grounded("models", "fetch", "base-ft")
    assert (done.exit_code, done.stderr) == (0, "")
    commit = published.branches[ID, "main"]
    for text in (ID, commit, SAM):
        assert text in done.stdout
    assert read_pins(lock_path())[ID, "main"].commit == commit
    newer = published.add(ID, {**published.repos[ID][commit], "README.md": b"newer"})
    assert commit in grounded("models", "fetch", "base-ft").stdout
    assert newer in grounded("models", "fetch", "base-ft", "--update").stdout
    assert read_pins(lock_path())[ID, "main"].commit == newer


def options_of(done: Result) -> list[str]:
    return done.stdout.splitlines()[-1].removeprefix("options: ").split()


def test_a_folder_works_offline_on_another_machine(
    published: StandInHub, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint("a.png", red=(2, 3, 12, 9))
    done = grounded("models", "fetch", "base-ft", "--to", "taken")
    assert done.exit_code == 0, done.stderr
    options = options_of(done)
    assert options == ["--detector", "taken/detector", "--segmenter", f"taken/{SAM}"]
    assert not any(path.is_symlink() for path in Path("taken").rglob("*"))
    # Fetching it twice takes nothing twice.
    n_sent = published.n_sent()
    published.seen.clear()
    assert grounded("models", "fetch", "base-ft", "--to", "taken").exit_code == 0
    assert published.n_sent("/blobs/") + published.n_sent(SAM) == 0
    assert n_sent > 0
    for name in ("GROUNDED_SEG_CACHE", "HF_ENDPOINT", "GROUNDED_SEG_MIRROR"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(Path("taken").resolve().parent)
    elsewhere = run("--preset", "base-ft", *options, "-o", "out", "--offline")
    assert elsewhere.exit_code == 0, elsewhere.stderr
    checked = grounded("models", "verify", "taken")
    assert checked.exit_code == 0, checked.stderr
    (Path("taken") / SAM).write_bytes(b"x")
    Path("taken/detector/config.json").unlink()
    damaged = grounded("models", "verify", "taken")
    assert damaged.exit_code == 4
    assert error_of(damaged).startswith("error: 2 files are missing or damaged")


def test_a_folder_is_made_from_the_cache_without_a_network(
    published: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grounded("models", "fetch", "base-ft").exit_code == 0
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("GROUNDED_SEG_MIRROR", "http://127.0.0.1:9")
    done = grounded("models", "fetch", "base-ft", "--to", "taken")
    assert done.exit_code == 0, done.stderr
    assert grounded("models", "verify", "taken").exit_code == 0


def test_another_file_in_the_folder_is_no_reason_to_overwrite_it(published: StandInHub) -> None:
    Path("taken/detector").mkdir(parents=True)
    Path("taken/detector/config.json").write_text("mine")
    done = grounded("models", "fetch", "base-ft", "--to", "taken")
    assert done.exit_code == 4
    assert "config.json is another file than the hub's" in error_of(done)
    assert Path("taken/detector/config.json").read_text() == "mine"


def test_a_folder_on_a_full_disk_is_no_fault_of_the_weights(
    published: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        done = grounded("models", "fetch", "vit_b", "--to", "sam")
        assert done.exit_code == 1
        assert "can't be written (No space left on device); make room" in done.stderr.splitlines()[-1]
        # The cache is no result: there its weights are missing.
        done = grounded("models", "fetch", "vit_b")
        assert done.exit_code == 4
        assert "Make room or get permission there" in done.stderr.splitlines()[-1]
    assert grounded("models", "fetch", "vit_b", "--to", "sam").exit_code == 0


def test_a_segmenter_alone_and_the_demo(published: StandInHub) -> None:
    done = grounded("models", "fetch", "vit_b", "--to", "sam")
    assert options_of(done) == ["--segmenter", f"sam/{SAM}"]
    demo = grounded("models", "fetch", "demo")
    assert demo.exit_code == 0
    assert demo.stderr.splitlines()[0] == "note: demo/detector is on this disk already: nothing to fetch"
    taken = grounded("models", "fetch", "demo", "--to", "demo-taken")
    assert options_of(taken)[-2:] == ["--adapter", "demo-taken/adapter"]


@pytest.mark.parametrize(
    ("layout", "option"), [("older", "--detector"), ("adapter", "--adapter"), ("float16", "--detector")]
)
def test_every_kind_of_repository(published: StandInHub, tmp_path: Path, layout: str, option: str) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "older": lambda folder: older_folder(folder),
        "adapter": lambda folder: save_adapter(folder),
        "float16": lambda folder: make_network().half().save_pretrained(folder, max_shard_size="200KB"),
    }
    (tmp_path / "made").mkdir()
    make[layout](tmp_path / "made")
    files = as_files(tmp_path / "made")
    published.add(
        "someone/other", {**files, "modeling_florence2.py": b"raise SystemExit", "run.py": b"raise SystemExit"}
    )
    done = grounded("models", "fetch", "someone/other", "--to", "taken")
    assert done.exit_code == 0, done.stderr
    assert options_of(done) == [option, "taken"]
    assert not list(Path("taken").glob("*.py"))
    assert not any(path.endswith(".py") for path in published.paths())


def test_verify_finds_what_changed(published: StandInHub, caches: Path) -> None:
    nothing = grounded("models", "verify")
    assert (nothing.exit_code, nothing.stderr) == (0, "note: no downloaded weights on this disk\n")
    missing = grounded("models", "verify", "base-ft")
    assert missing.exit_code == 4
    assert "not on this disk; fetch it with `grounded-seg models fetch base-ft`" in error_of(missing)
    grounded("models", "fetch", "base-ft")
    assert grounded("models", "verify").exit_code == 0
    assert grounded("models", "verify", "base-ft").exit_code == 0
    blob = next(path for path in (caches / "hub").rglob("model.safetensors")).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    for names in ((), ("base-ft",), (ID,)):
        damaged = grounded("models", "verify", *names)
        assert damaged.exit_code == 4
        assert error_of(damaged).startswith("error: 1 file is missing or damaged")
        assert "its hash differs" in damaged.stdout
    # Also where nothing was noted down: the hub's cache names a blob by its hash.
    lock_path().unlink()
    assert grounded("models", "verify", "base-ft").exit_code == 4


def test_remove_takes_what_nothing_else_uses(published: StandInHub, caches: Path, florence: dict[str, bytes]) -> None:
    published.add("florence-community/Florence-2-base", florence)
    for preset in ("base", "base-ft"):
        assert grounded("models", "fetch", preset).exit_code == 0
    done = grounded("models", "remove", "base")
    assert (done.exit_code, done.stderr) == (0, f"note: kept {SAM}, which base-ft uses\n")
    assert (caches / "own" / SAM).is_file()
    assert list(read_pins(lock_path())) == [(ID, "main")]
    done = grounded("models", "remove", "base-ft")
    assert done.stdout.endswith(" MB freed\n")
    assert not [path for path in caches.rglob("*") if path.is_file()]
    assert grounded("models", "remove", "base-ft").stdout == "nothing of base-ft is on this disk: nothing to delete\n"
    demo = grounded("models", "remove", "demo")
    assert (demo.exit_code, "comes with the project" in error_of(demo)) == (2, True)


def test_list_tells_sizes(published: StandInHub) -> None:
    rows = {line.split()[0]: line for line in grounded("models", "list").stdout.splitlines()[1:]}
    assert rows["demo"].rstrip().endswith("yes           18 MB")
    assert rows["large"].rstrip().endswith("not yet       4.1 to 5.6 GB to fetch")
    grounded("models", "fetch", "base-ft")
    rows = {line.split()[0]: line for line in grounded("models", "list").stdout.splitlines()[1:]}
    assert " yes " in rows["base-ft"]
    assert rows["base-ft"].rstrip().endswith("MB")


FAST_SEGMENTER = "facebook/sam2.1-hiera-tiny"


@pytest.fixture
def fast(published: StandInHub, tmp_path_factory: pytest.TempPathFactory) -> StandInHub:
    """The hub with both parts of `fast` at tiny size; the segmenter holds the tracker too, as the published one."""
    folder = tmp_path_factory.mktemp("sam2")
    build("sam2_video").save_pretrained(folder)
    processor_of("sam2").image_processor.save_pretrained(folder)
    published.add(FAST_SEGMENTER, as_files(folder))
    return published


def test_the_fast_preset_takes_both_parts_from_the_hub(fast: StandInHub, paint: Paint) -> None:
    paint("a.png", red=(2, 3, 12, 9))
    rows = {line.split()[0]: line for line in grounded("models", "list").stdout.splitlines()[1:]}
    assert FAST_SEGMENTER in rows["fast"]
    assert rows["fast"].rstrip().endswith("not yet       0.5 to 1.1 GB to fetch")
    done = grounded("models", "fetch", "fast")
    assert (done.exit_code, done.stderr) == (0, "")
    assert all(commit in done.stdout for commit in fast.branches.values())
    assert {name for name, _ in read_pins(lock_path())} == {ID, FAST_SEGMENTER}
    assert grounded("models", "verify", "fast").exit_code == 0
    assert FAST_SEGMENTER in grounded("models", "verify").stdout
    fast.seen.clear()
    done = run("--preset", "fast", "-o", "out", "--offline")
    assert (done.exit_code, fast.seen) == (0, []), done.stderr
    models = json.loads(Path("out/run.json").read_text())["models"]
    assert {part: models[part]["revision"] for part in ("detector", "segmenter")} == {
        "detector": fast.branches[ID, "main"],
        "segmenter": fast.branches[FAST_SEGMENTER, "main"],
    }


def test_the_fast_preset_works_from_a_folder(fast: StandInHub, paint: Paint) -> None:
    paint("a.png", red=(2, 3, 12, 9))
    done = grounded("models", "fetch", "fast", "--to", "taken")
    assert done.exit_code == 0, done.stderr
    assert options_of(done) == ["--detector", "taken/detector", "--segmenter", "taken/segmenter"]
    assert grounded("models", "verify", "taken").exit_code == 0
    assert run("--preset", "fast", *options_of(done), "-o", "out", "--offline").exit_code == 0


def test_a_detector_that_two_presets_share_stays_with_the_other(fast: StandInHub) -> None:
    for preset in ("fast", "base-ft"):
        assert grounded("models", "fetch", preset).exit_code == 0
    done = grounded("models", "remove", "fast")
    assert (done.exit_code, done.stderr) == (0, f"note: kept {ID}, which base-ft uses\n")
    assert {name for name, _ in read_pins(lock_path())} == {ID}
    assert grounded("models", "verify", "base-ft").exit_code == 0
    # By its own name it goes.
    assert "MB freed" in grounded("models", "remove", ID).stdout
    assert read_pins(lock_path()) == {}


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "-x", ""])
def test_a_name_of_nothing_is_usage(published: StandInHub, name: str) -> None:
    done = grounded("models", "fetch", "--", name)
    assert done.exit_code == 2
    assert "nor a hub id" in error_of(done)


FAULTS = {
    "404": ("/resolve/", {"code": 404}, "404"),
    "401": ("/revision/", {"code": 401}, "HF_TOKEN"),
    "429": ("/revision/", {"code": 429, "times": 99}, "429"),
    "500": (SAM, {"code": 500, "times": 99}, "500"),
    "cut": (SAM, {"cut_at": 0.9}, "are kept, and the same command resumes there"),
    "hash": (SAM, {"change": lambda data: data[::-1]}, "arrived damaged or changed"),
    "size": ("/blobs/", {"change": lambda data: data[1:]}, "bytes of it instead of"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("command", ["run", "models"])
def test_a_fault_is_one_line_and_the_second_try_goes_on(
    published: StandInHub,
    paint: Paint,
    caches: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: str,
) -> None:
    paint("a.png", red=(2, 3, 12, 9))
    path, how, says = FAULTS[name]
    published.fail(path, **how)  # type: ignore[arg-type]
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(pauses_s=()))
    words = ("run", "red car", "a.png", "--preset", "base-ft", "--device", "cpu", "--dtype", "float32", "-o", "out")
    arguments = words if command == "run" else ("models", "fetch", "base-ft")
    done = grounded(*arguments)
    assert done.exit_code == 4
    assert says in error_of(done)
    assert not (caches / "own" / SAM).exists()
    left = [one for one in caches.rglob(".*") if one.is_file()]
    assert len(left) == (2 if name == "cut" else 0)
    published.faults.clear()
    n_before = published.n_sent(SAM)
    assert grounded(*arguments).exit_code == 0
    n_all = len(published.published[SAM])
    assert published.n_sent(SAM) - n_before == (n_all - int(n_all * 0.9) if name == "cut" else n_all)
    assert not [one for one in caches.rglob(".*") if one.is_file()]


def test_two_processes_fetch_one_file_once(published: StandInHub, caches: Path) -> None:
    published.fail("/blobs/", chunk=100_000, pause_s=0.1)
    program = "import sys; from grounded_seg.weights.locate import locate; "
    program += (
        "from grounded_seg.weights.sources import HubSource; print(locate(HubSource(sys.argv[1], 'main')).revision)"
    )
    surroundings = {**os.environ, "HF_HUB_CACHE": str(caches / "hub"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, ID]
    both = [subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    commit = published.branches[ID, "main"]
    assert [one.communicate(timeout=120)[0].strip() for one in both] == [commit, commit]
    weights = published.repos[ID][commit]["model.safetensors"]
    assert published.n_sent("/blobs/") == len(weights)


def test_an_interruption_says_how_to_go_on(published: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("grounded_seg.cli.fetching.locate", interrupt)
    done = grounded("models", "fetch", "base-ft")
    assert done.exit_code == 130
    assert error_of(done) == "error: interrupted; what has arrived is kept; to resume, run the same command"
