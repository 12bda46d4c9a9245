"""All that `doctor` finds, beginning with what is installed, which needs nothing of it."""

import platform
import sys
from collections.abc import Iterator

from grounded_seg.device.versions import TESTED, installed, is_newer_than_tested, numbers
from grounded_seg.diagnosis.finding import Finding, State, checked
from grounded_seg.errors import GroundedSegError

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
        elif is_newer_than_tested(name, here):
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
