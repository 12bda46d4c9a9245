"""The command line: parse -> settings -> one call -> summary -> exit code. One module per command."""

import click

from grounded_seg import __version__
from grounded_seg.cli.ask import ask
from grounded_seg.cli.compare import compare
from grounded_seg.cli.eval import evaluate
from grounded_seg.cli.exit_codes import Commands
from grounded_seg.cli.export import export
from grounded_seg.cli.merge_runs import merge_runs
from grounded_seg.cli.models import models
from grounded_seg.cli.run import run
from grounded_seg.cli.train import train
from grounded_seg.cli.validate import validate


@click.group("grounded-seg", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grounded-seg")
def main() -> None:
    """A sentence and an image go in; boxes, masks and COCO annotations come out."""


main.add_command(run)
main.add_command(ask)
main.add_command(evaluate)
main.add_command(compare)
main.add_command(train)
main.add_command(export)
main.add_command(validate)
main.add_command(merge_runs)
main.add_command(models)
