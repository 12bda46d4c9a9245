"""`doctor`: what it finds, the remedy, and the exit code; the demo's known answer."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from paths import DEMO, ROOT
from stand_in_hub import StandInHub

from grounded_seg.cli import main
from grounded_seg.device import hardware
from grounded_seg.diagnosis import installation, known_answer, machine
from grounded_seg.diagnosis.finding import Finding, State, checked, exit_code_of
from grounded_seg.diagnosis.installation import TESTED, numbers
from grounded_seg.errors import DeviceError
from grounded_seg.geometry.masks import run_length_from_coco
from grounded_seg.records import Detection, ImageResult, Instance
from grounded_seg.weights import sources

pytestmark = pytest.mark.usefixtures("caches", "pauses")


def doctor(*options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--device", "cpu", "--dtype", "float32", *options])


def stored() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEMO / "known_answer.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known answer without the seconds that it takes to load models."""
    monkeypatch.setattr(known_answer, "ask_demo", lambda device, dtype: Finding("known answer", State.OK, "right"))


def test_all_is_right_here() -> None:
    done = doctor()
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for subject in ("Python", "versions", "OpenCV", "device", "memory", "disk", "preset demo", "downloaded weights"):
        assert any(line.startswith(("ok ", "warning ")) and f"{subject}: " in line for line in lines), subject
    assert re.search(
        r"ok +known answer: the demo finds what it should; [\d.]+ s to load, [\d.]+ s for the image", done.stdout
    )


def test_json_for_a_report(no_models: None) -> None:
    done = doctor("--json")
    content = json.loads(done.stdout)
    assert content["exit_code"] == done.exit_code == 0
    by_subject = {one["subject"]: one for one in content["findings"]}
    assert by_subject["device"]["dtype"] == "float32"
    assert by_subject["preset base-ft"]["remedy"] == "grounded-seg models fetch base-ft"
    assert by_subject["versions"].keys() >= {"torch", "transformers", "peft"}
    assert str(Path.home()) not in done.stdout


def test_the_network_is_asked_only_online(no_models: None, hub: StandInHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("florence-community/Florence-2-base-ft", {"model.safetensors": b"m"})
    assert "network" not in doctor().stdout
    assert hub.seen == []
    done = doctor("--online", "--json")
    by_subject = {one["subject"]: one for one in json.loads(done.stdout)["findings"]}
    assert (done.exit_code, by_subject["network"]["commit"]) == (0, commit)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = doctor("--online")
    assert done.exit_code == 4
    assert "error   network: " in done.stdout


def test_damaged_weights_are_found(no_models: None, caches: Path) -> None:
    (caches / "own").mkdir()
    (caches / "own" / "sam_vit_b_01ec64.pth").write_bytes(b"x")
    done = doctor()
    assert done.exit_code == 4
    assert "error   downloaded weights: sam_vit_b_01ec64.pth: " in done.stdout
    assert "-> grounded-seg models remove" in done.stdout


def test_a_missing_demo_is_found(caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "grounded_seg" / "weights" / "sources.py"))
    done = doctor()
    assert done.exit_code == 4
    assert "error   preset demo: The demo preset's detector is missing" in done.stdout
    assert "error   known answer: " in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--device", "cuda:99"], 5, "error   device: device cuda:99 isn't available"),
        (["--device", "abacus"], 2, "error   device: unknown device 'abacus'"),
    ],
)
def test_a_device_that_is_not_there(no_models: None, options: list[str], code: int, says: str) -> None:
    done = doctor(*options)
    assert done.exit_code == code
    assert says in done.stdout
    assert "        -> " in done.stdout.partition(says)[2].splitlines()[1]


def test_opencv_that_can_not_be_loaded(no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise DeviceError("OpenCV can't be loaded (libGL.so.1); on Debian: apt-get install libgl1 libglib2.0-0")

    monkeypatch.setattr(machine, "opencv", broken)
    done = doctor()
    assert done.exit_code == 5
    assert "error   OpenCV: OpenCV can't be loaded (libGL.so.1)\n        -> on Debian: apt-get install" in done.stdout


def test_a_library_that_can_not_be_imported_is_a_finding() -> None:
    program = "import sys; sys.modules['torch'] = None; from grounded_seg.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "error   imports: " in done.stdout


@pytest.mark.parametrize(
    ("name", "here", "state", "says"),
    [
        ("transformers", "5.12.1", State.ERROR, "transformers 5.12.1 is older than 5.20"),
        ("transformers", "99.0", State.WARNING, "transformers 99.0 is newer than"),
        ("torch", "2.14.9+cu130", State.OK, "torch 2.14.9"),
        ("peft", None, State.ERROR, "peft is missing"),
        ("opencv-python-headless", "5.0", State.ERROR, "opencv-python-headless is beside"),
    ],
)
def test_versions_against_the_tested(
    monkeypatch: pytest.MonkeyPatch, name: str, here: str | None, state: State, says: str
) -> None:
    good = {one: lowest for one, (lowest, _) in TESTED.items()}
    monkeypatch.setattr(installation, "installed", lambda one: here if one == name else good.get(one))
    found = installation._versions()
    assert (found.state, says in found.what) == (state, True), found.what
    assert (found.remedy is None) == (state is State.OK)


def test_the_lowest_versions_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lowest = dict(one.split(">=") for one in declared)
    assert {name: bounds[0] for name, bounds in TESTED.items()} == {name: lowest[name] for name in TESTED}


def test_the_newest_versions_are_no_older_than_those_here() -> None:
    for name, (_, newest) in TESTED.items():
        here = installation.installed(name)
        assert here is not None
        assert numbers(here)[: len(numbers(newest))] <= numbers(newest), name


def test_little_memory_and_disk_are_warnings(no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2 << 30)
    usage = shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = doctor()
    assert done.exit_code == 0
    assert "warning memory: 2.0 GiB" in done.stdout
    assert "warning disk: " in done.stdout


def test_a_card_that_torch_can_not_use(no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_driver", lambda: "570.86.15")
    monkeypatch.setattr(machine, "cards", list)
    monkeypatch.setattr(machine, "cuda_build", lambda: None)
    done = doctor()
    assert done.exit_code == 0
    assert "warning device: cpu, float32; there is an NVIDIA driver 570.86.15, but torch has no CUDA" in done.stdout


def test_a_card_that_refuses_is_a_finding(no_models: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[hardware.Card]:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(machine, "cards", refuse)
    done = doctor()
    assert done.exit_code == 5
    assert "error   device: RuntimeError" in done.stdout


def test_the_driver_is_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_NVIDIA_DRIVER", tmp_path / "version")
    assert hardware.nvidia_driver() is None
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\n")
    assert hardware.nvidia_driver() == "570.86.15"


def result_with(*instances: Instance) -> ImageResult:
    size = run_length_from_coco(stored()["instances"][0]["mask"]).size
    return ImageResult(path=Path("scene-1.jpg"), size=size, instances=instances)


def right_instance() -> Instance:
    content = stored()["instances"][0]
    detection = Detection(label="red car", prompt="red car", box_xyxy=tuple(content["box_xyxy"]), score=0.98)
    return Instance(detection=detection, mask=run_length_from_coco(content["mask"]), mask_score=0.8)


def test_the_answer_is_compared_with_what_is_stored() -> None:
    right = right_instance()
    seconds = {"load": 1.0, "image": 0.5}
    assert known_answer.compare(result_with(right), stored(), seconds).state is State.OK
    moved = replace(right, detection=replace(right.detection, box_xyxy=(0.0, 0.0, 10.0, 10.0)))
    for wrong, says in (
        ((), "0 objects instead of 1"),
        ((right, right), "2 objects instead of 1"),
        ((moved,), "IoU of 0.00 only"),
        ((replace(right, mask=None),), "IoU of 0.00 only"),
    ):
        found = known_answer.compare(result_with(*wrong), stored(), seconds)
        assert (found.state, found.exit_code) == (State.ERROR, 5)
        assert says in found.what
        assert found.remedy is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prompt": 1, "instances": []}'])
def test_a_damaged_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "known_answer.json").write_text(text)
    monkeypatch.setattr(known_answer, "shipped_file", lambda _, name: tmp_path / name)
    found = checked("known answer", lambda: known_answer.ask_demo("cpu", "float32"))
    assert (found.state, found.exit_code, found.remedy) == (State.ERROR, 4, "install grounded-seg again")


def test_the_first_error_gives_the_code() -> None:
    made = [Finding("a", State.OK, ""), Finding("b", State.WARNING, ""), Finding("c", State.ERROR, "", "x", 4)]
    assert exit_code_of(made) == 4
    assert exit_code_of([*made, Finding("d", State.ERROR, "", "x", 5)]) == 4
    assert exit_code_of(made[:2]) == 0
