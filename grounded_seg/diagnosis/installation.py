"""All that `doctor` finds, beginning with what is installed, which needs nothing of it."""

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from grounded_seg.diagnosis.finding import Finding, State, checked
from grounded_seg.errors import GroundedSegError

TESTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("2.6", "2.14"),
        "torchvision": ("0.21", "0.29"),
        "transformers": ("5.13", "5.24"),
        "peft": ("0.17", "0.21"),
        "accelerate": ("1.1", "1.15"),
        "huggingface_hub": ("0.30", "2.4"),
        "opencv-python": ("5.0", "5.0"),
        "numpy": ("1.26", "2.5"),
        "pillow": ("11.3", "13.0"),
        "pillow-heif": ("1.0", "1.8"),
        "pycocotools": ("2.0.8", "2.0.12"),
        "segment-anything": ("1.0", "1.0"),
    }
)
"""The lowest version that works, and the newest that was tested."""
_PYTHON = ((3, 11), (3, 13))


def all_findings(device: str, dtype: str, *, online: bool = False) -> Iterator[Finding]:
    """All findings, one by one as they are made.

    Args:
        device: As `ModelSettings.device`.
        dtype: As `ModelSettings.dtype`.
        online: Ask the hub too; nothing else needs a network.
    """
    yield _python()
    yield _versions()
    try:
        # What can't be imported is a finding: this command is for finding it.
        from grounded_seg.diagnosis.known_answer import ask_demo
        from grounded_seg.diagnosis.machine import surroundings
    except (ImportError, OSError) as error:
        remedy = "install grounded-seg again, in a virtual environment of its own"
        yield Finding("imports", State.ERROR, f"{error}".splitlines()[0], remedy, GroundedSegError.exit_code)
        return
    yield from surroundings(device, dtype, online=online)
    yield checked("known answer", lambda: ask_demo(device, dtype))


def _python() -> Finding:
    found, (lowest, newest) = sys.version_info[:2], _PYTHON
    what = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    facts = {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if not lowest <= found <= newest:
        span = f"{lowest[0]}.{lowest[1]} to {newest[0]}.{newest[1]}"
        return Finding(
            "Python", State.WARNING, what, f"tested with {span}: use one of these if something fails", 0, facts
        )
    return Finding("Python", State.OK, what, facts=facts)


def _versions() -> Finding:
    """The installed versions against the tested ones."""
    found = {name: installed(name) for name in TESTED}
    wrong, untested = [], []
    for name, (lowest, newest) in TESTED.items():
        here = found[name]
        if here is None:
            wrong.append(f"{name} is missing")
        elif numbers(here) < numbers(lowest):
            wrong.append(f"{name} {here} is older than {lowest}")
        elif numbers(here)[: len(numbers(newest))] > numbers(newest):
            untested.append(f"{name} {here} is newer than {newest}, the newest tested")
    if installed("opencv-python-headless") is not None:
        wrong.append("opencv-python-headless is beside opencv-python, and both own the folder cv2")
    if wrong:
        remedy = "install grounded-seg again, in a virtual environment of its own"
        return Finding(
            "versions", State.ERROR, "; ".join((*wrong, *untested)), remedy, GroundedSegError.exit_code, found
        )
    if untested:
        remedy = "if a model can't be loaded or finds nothing, install the tested version"
        return Finding("versions", State.WARNING, "; ".join(untested), remedy, 0, found)
    shown = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "peft"))
    return Finding("versions", State.OK, f"{shown}; all {len(found)} as tested", facts=found)


def installed(distribution: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version, to compare.

    >>> numbers("2.14.1+cpu"), numbers("5.24.0rc1") > numbers("5.13")
    ((2, 14, 1), True)
    """
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
