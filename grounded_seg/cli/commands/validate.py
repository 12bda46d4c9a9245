"""`grounded-seg validate`: a COCO file checked for errors, and for what label tools can't read."""

import re
from collections import Counter
from pathlib import Path

import click

from grounded_seg.cli.messages import counted, set_up_messages, show
from grounded_seg.cli.options import PATH, debug_option
from grounded_seg.errors import InputError

_SHOWN = 5
"""Lines of each kind."""
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|\[.*\]|[-+\w]*\d[-+.\w]*")


@click.command()
@click.argument("file", metavar="FILE.json", type=PATH)
@click.option("--images", type=PATH, help="Check the image files in this folder too.")
@click.option("--fix", "destination", metavar="OUT.json", type=PATH, help="Write a repaired copy to this file.")
@click.option("--strict", is_flag=True, help="Exit with 3 on warnings too.")
@debug_option
def validate(file: Path, images: Path | None, destination: Path | None, strict: bool, debug: bool) -> int:
    """Check a COCO file for what readers stop at or misread, and for what gets lost.

    Each line gives the severity, the rule, the position in the file, the reason, and the reader that was tried. An
    error is what a named reader stops at or reads as something else; a warning is what gets lost or is odd. With --fix,
    the repairs are listed too, then the errors that are left; the exit code is that of the repaired copy.

    Exit code: 0 no errors, 1 the copy can't be written, 2 usage, 3 errors found (with --strict, or warnings), 130
    interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and pycocotools, which would slow --help down.
    from grounded_seg.coco.check.repair import repair_file
    from grounded_seg.coco.check.rules import Severity
    from grounded_seg.coco.check.validate import validate_file

    faults = validate_file(file, images)
    try:
        # First, as a closed or full standard output doesn't take the lines.
        repairs = [] if destination is None else repair_file(file, destination, images)
    finally:
        # Each of the readers' warnings stands for many annotations already.
        _print_few([(None if fault.rule == "reader" else fault.rule, str(fault)) for fault in faults])
    n_errors = sum(fault.severity is Severity.ERROR for fault in faults)
    if destination is None:
        show(f"{file}: {counted(n_errors, 'error')}, {counted(len(faults) - n_errors, 'warning')}")
    else:
        _print_few([(_kind_of(line), f"repaired {line}") for line in repairs])
        faults = validate_file(destination, images)
        errors = [fault for fault in faults if fault.severity is Severity.ERROR]
        n_errors = len(errors)
        _print_few([(fault.rule, f"left {fault}") for fault in errors])
        left = counted(n_errors, "error")
        if strict:
            left += f" and {counted(len(faults) - n_errors, 'warning')}"
        show(f"{destination}: {counted(len(repairs), 'repair')}, {left} left")
    return InputError.exit_code if n_errors or (strict and faults) else 0


def _kind_of(repair: str) -> str:
    """The words of a repair without its place and its values, so that equal ones can be counted."""
    return _VALUES.sub("", repair.partition(": ")[2])


def _print_few(lines: list[tuple[str | None, str]]) -> None:
    """Print the first five lines of each kind, in order, and on the last of them how many more there are."""
    n_of = Counter(kind for kind, _ in lines)
    shown: Counter[str | None] = Counter()
    for kind, line in lines:
        shown[kind] += 1
        n_more = n_of[kind] - _SHOWN
        if kind is None or shown[kind] < _SHOWN or (shown[kind] == _SHOWN and n_more == 0):
            show(line)
        elif shown[kind] == _SHOWN:
            show(f"{line} (and {n_more} more like it)")
