"""The command line: parse -> settings -> one call -> summary -> exit code. A module per subject."""

import click

from grounded_seg import __version__
from grounded_seg.cli.commands.ask import ask
from grounded_seg.cli.commands.calibrate import calibrate
from grounded_seg.cli.commands.doctor import doctor
from grounded_seg.cli.commands.eval import compare, evaluate
from grounded_seg.cli.commands.export import export
from grounded_seg.cli.commands.merge_runs import merge_runs
from grounded_seg.cli.commands.models import models
from grounded_seg.cli.commands.run import run
from grounded_seg.cli.commands.serve import serve
from grounded_seg.cli.commands.status import status
from grounded_seg.cli.commands.train import train
from grounded_seg.cli.commands.validate import validate
from grounded_seg.cli.commands.view import view
from grounded_seg.cli.exit_codes import Commands


@click.group("grounded-seg", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grounded-seg")
def main() -> None:
    """A sentence and an image go in; boxes, masks and COCO annotations come out."""


_COMMANDS = (
    (run, "Find what a prompt names in images: boxes, masks, COCO."),
    (ask, "Ask Florence-2 about an image, with any of its tasks."),
    (evaluate, "Measure both stages on a COCO data set."),
    (compare, "Compare two reports of eval."),
    (calibrate, "Learn from a report of eval what a score means."),
    (train, "Fine-tune the detector on a data set."),
    (export, "Write labels in another tool's format."),
    (validate, "Check a COCO file, and repair it."),
    (merge_runs, "Merge runs over different images into one."),
    (view, "Look through a run in the browser, and decide on what it found."),
    (status, "Show how far runs are, while they run or after."),
    (doctor, "Check that everything works on this machine."),
    (serve, "Answer requests: a web page, an HTTP interface, label tools."),
    (models, "List, fetch, verify and convert weights; merge adapters."),
)
for _command, _short_help in _COMMANDS:
    # click would cut off the first sentence of a command's help to fit the list.
    _command.short_help = _short_help
    main.add_command(_command)
