"""`grounded-seg compare`: two reports of eval on the same data set, compared."""

from pathlib import Path

import click

from grounded_seg.cli.messages import set_up_messages
from grounded_seg.cli.options import COUNT, PATH, debug_option


@click.command()
@click.argument("first", metavar="A.json", type=PATH)
@click.argument("second", metavar="B.json", type=PATH)
@click.option(
    "--intervals",
    "n_draws",
    type=COUNT,
    default=1000,
    show_default=True,
    help="Number of bootstrap resamples of the images for the 95 % intervals of the differences; 0 gives no intervals.",
)
@debug_option
def compare(first: Path, second: Path, n_draws: int, debug: bool) -> int:
    """Print as Markdown what changed from A.json to B.json, two files of `eval --json`.

    Both must be measured on the same data set, such as a base and a tuned model, or two presets.

    Exit code: 0 compared, 2 usage, 3 unreadable or different inputs.
    """
    set_up_messages(debug=debug)
    # These import numpy and pycocotools, which would slow --help down.
    from grounded_seg.scoring.compare import compare as compared
    from grounded_seg.scoring.compare import markdown_of
    from grounded_seg.scoring.json_report import read_report

    click.echo(markdown_of(compared(read_report(first), read_report(second), n_draws)), nl=False)
    return 0
