"""`grounded-seg merge-runs`: several runs over different images merged into one."""

from pathlib import Path

import click

from grounded_seg.cli.messages import counted, note, set_up_messages, show
from grounded_seg.cli.options import PATH, debug_option, quiet_option, results_option
from grounded_seg.settings import ResultsForm


@click.command("merge-runs")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Folder for the merged run.")
@results_option
@quiet_option
@debug_option
def merge_runs(runs: tuple[Path, ...], output: Path, results: ResultsForm, quiet: bool, debug: bool) -> int:
    """Merge runs over different images with the same classes into one.

    RUN is the folder of a run; a pattern in quotes is expanded: 'out/shard-*'. Images and annotations get new ids, and
    file names become relative to the folder that all images lie in. Decisions (review.jsonl) are merged too. Overlays,
    masks and crops stay in the folders of the runs.

    All shards of a list (run --shard K/N), in any order, give the files of one run over the list.

    Exit code: 0 done, 1 the result can't be written, 2 usage, 3 unreadable input, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and rich, which would slow --help down.
    from grounded_seg.cli.progress import WorkDisplay
    from grounded_seg.review.decisions_merge import carry_over
    from grounded_seg.runs.merge import merge_runs as merge

    notes: list[str] = []

    def take_decisions() -> None:
        if n_lines := carry_over(runs, output):
            notes.append(f"{counted(n_lines, 'line')} of decisions were taken over")

    with WorkDisplay(quiet=quiet) as display:
        counts = merge(runs, output, display.of("images"), notes.append, results, take_decisions)
    for line in notes:
        note(line)
    skipped = f", {counts.n_skipped} skipped" if counts.n_skipped else ""
    show(f"{counted(counts.n_instances, 'instance')} in {counted(counts.n_done, 'image')}{skipped}: {output}")
    return 0
