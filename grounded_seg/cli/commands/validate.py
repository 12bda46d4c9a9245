"""`grounded-seg validate`: a COCO file checked for errors, and for what label tools can't read."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grounded_seg.cli.messages import set_up_messages
from grounded_seg.cli.options import PATH, debug_option
from grounded_seg.errors import InputError

if TYPE_CHECKING:
    from grounded_seg.coco.text import Fault

_SHOWN_PER_RULE = 5


@click.command()
@click.argument("file", metavar="FILE.json", type=PATH)
@click.option("--images", type=PATH, help="Check the image files in this folder too.")
@click.option("--fix", "destination", metavar="OUT.json", type=PATH, help="Write a repaired copy to this file.")
@debug_option
def validate(file: Path, images: Path | None, destination: Path | None, debug: bool) -> int:
    """Check a COCO file for errors, and for what label tools would lose.

    Each line gives the severity, the rule, the position in the file and the reason. With --fix, the repairs are listed
    too, and the exit code is that of the repaired copy.

    Exit code: 0 no errors, 1 the copy can't be written, 2 usage, 3 errors found, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and pycocotools, which would slow --help down.
    from grounded_seg.coco.check.repair import repair_file
    from grounded_seg.coco.check.validate import validate_file
    from grounded_seg.coco.text import Severity

    faults = validate_file(file, images)
    _print(faults)
    if destination is not None:
        repairs = repair_file(file, destination, images)
        for line in repairs:
            click.echo(f"repaired {line}")
        faults = validate_file(destination, images)
        n_errors = _n_errors(faults)
        click.echo(f"{destination}: {len(repairs)} repairs, {n_errors} errors left")
        return InputError.exit_code if n_errors else 0
    n_errors = _n_errors(faults)
    n_warnings = sum(fault.severity is Severity.WARNING for fault in faults)
    click.echo(f"{file}: {n_errors} errors, {n_warnings} warnings")
    return InputError.exit_code if n_errors else 0


def _n_errors(faults: "list[Fault]") -> int:
    return sum(fault.severity.value == "error" for fault in faults)


def _print(faults: "list[Fault]") -> None:
    """Print the first few faults of each rule, in order."""
    shown: Counter[str] = Counter()
    for fault in faults:
        shown[fault.rule] += 1
        # Each of the readers' warnings stands for many annotations already.
        if shown[fault.rule] <= _SHOWN_PER_RULE or fault.rule == "reader":
            click.echo(f"{fault.severity.value} {fault.rule}: {fault.place}: {fault.message}")
    for rule, n in shown.items():
        if n > _SHOWN_PER_RULE and rule != "reader":
            click.echo(f"and {n - _SHOWN_PER_RULE} more of {rule}")
