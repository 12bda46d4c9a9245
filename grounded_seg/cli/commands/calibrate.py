"""`grounded-seg calibrate`: what a score means, learnt from an evaluation."""

from pathlib import Path

import click

from grounded_seg.cli.messages import note, set_up_messages, show
from grounded_seg.cli.options import PATH, debug_option


@click.command()
@click.argument("report", metavar="EVAL.json", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="File for the calibration.")
@click.option("--plots", type=PATH, help="Draw reliability before and after into this folder.")
@debug_option
def calibrate(report: Path, output: Path, plots: Path | None, debug: bool) -> int:
    """Learn from EVAL.json, a file of eval --json, with which probability a box of a score is right at IoU 0.5.

    run, eval and serve take the file with --calibration: their scores and thresholds are probabilities then. Each class
    has a map of its own. The table shows how the maps do on images that they weren't fitted to.

    Exit code: 0 written, 1 a file can't be written, 2 usage, 3 unreadable input.
    """
    set_up_messages(debug=debug)
    # These import numpy, scipy and rich, which would slow --help down.
    from grounded_seg.cli.eval_tables import show_calibration
    from grounded_seg.cli.slips import check_output_files
    from grounded_seg.scoring.fit_maps import calibrate as fit
    from grounded_seg.scoring.json_report import read_report
    from grounded_seg.scoring.plots import check_can_plot, write_reliability

    if plots is not None:
        check_can_plot()
    check_output_files({"-o": output}, {"EVAL.json": report})
    made = fit(read_report(report), output)
    for line in made.notes:
        note(line)
    show_calibration(made)
    show(output)
    if plots is not None:
        show(write_reliability(made.judged[0], plots))
    return 0
