"""`grounded-seg merge-runs`: several runs over different images as one."""

from pathlib import Path

import click

from grounded_seg.cli.messages import set_up_messages


@click.command("merge-runs")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the joined run.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def merge_runs(runs: tuple[Path, ...], output: Path, debug: bool) -> int:
    """Join the results of runs over different images with the same classes.

    Images and annotations are numbered anew, names become relative to the folder that all images lie in. Pictures stay
    in the runs' own folders.

    Exit code: 0 done, 1 the result can't be written, 2 usage, 3 unreadable input, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports numpy, which would slow --help down.
    from grounded_seg.runs.merge import merge_runs as merge

    counts = merge(runs, output)
    skipped = f", {counts.n_skipped} skipped" if counts.n_skipped else ""
    click.echo(f"{counts.n_instances} instances in {counts.n_done} images{skipped}: {output}")
    return 0
