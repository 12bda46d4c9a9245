"""`grounded-seg compare`: two reports of eval on the same data set, beside each other."""

from pathlib import Path

import click

from grounded_seg.cli.messages import set_up_messages


@click.command()
@click.argument("first", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("second", metavar="B.json", type=click.Path(path_type=Path))
@click.option(
    "--intervals",
    "n_draws",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Draws of the images for the 95 % intervals of the differences; 0 for none.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def compare(first: Path, second: Path, n_draws: int, debug: bool) -> int:
    """Say what changed from A.json to B.json, two files that `eval --json` wrote, as Markdown.

    Both have to be measured on the same data set: a base and a tuned model, or two presets.

    Exit code: 0 compared, 2 usage, 3 unreadable or different inputs.
    """
    set_up_messages(debug=debug)
    # These import numpy and pycocotools, which would slow --help down.
    from grounded_seg.scoring.compare import compare as compared
    from grounded_seg.scoring.compare import markdown_of
    from grounded_seg.scoring.json_report import read_report

    click.echo(markdown_of(compared(read_report(first), read_report(second), n_draws)), nl=False)
    return 0
