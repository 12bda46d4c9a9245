"""`grounded-seg status`: how far runs are."""

import json
from pathlib import Path

import click

from grounded_seg.cli.messages import cells, plain_table, set_up_messages, show, show_json, stdout_console
from grounded_seg.cli.options import PATH, debug_option


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@debug_option
def status(runs: tuple[Path, ...], as_json: bool, debug: bool) -> int:
    """Show how far runs are, while they run or after: done, skipped, left, images per second, time left.

    RUN is the folder of a run; a pattern in quotes is expanded: 'out/shard-*'. A run is running (a process holds its
    lock), stopped (--resume goes on), or finished. Nothing is changed or held up.

    Exit code: 0 shown, whatever the runs' states, 2 usage, 3 a folder is no run's or can't be read, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and rich, which would slow --help down.
    from grounded_seg.runs.shards import named_shards
    from grounded_seg.runs.status import RunsStatus, RunStatus, status_of

    found = status_of(runs)
    if as_json:
        show_json(json.dumps(found.as_json(), indent=2))
        return 0

    def row(name: str, state: str, one: RunStatus | RunsStatus) -> None:
        rate = "" if one.images_per_s is None else f"{one.images_per_s:.1f}"
        left = "?" if one.left is None else str(one.left)
        table.add_row(*cells(name, state, one.done, one.skipped, left, rate, _duration(one.time_left_s)))

    table = plain_table("run", "state", right=("done", "skipped", "left", "images/s", "time left"))
    for one in found.runs:
        row(str(one.run), str(one.state), one)
    if len(found.runs) > 1 or found.missing_shards:
        states = {state: n for state, n in found.as_json()["total"]["states"].items() if n}
        row("total", ", ".join(f"{n} {state}" for state, n in states.items()), found)
    stdout_console().print(table)
    if found.missing_shards and found.n_shards is not None:
        show(f"not among these: {named_shards(found.missing_shards, found.n_shards)}")
    if n_again := sum(one.out_of_reach for one in found.runs):
        show(f"out of reach when they were read: {n_again} of those skipped; run --resume asks about them again")
    return 0


def _duration(seconds: float | None) -> str:
    """Write hours, minutes and seconds.

    >>> _duration(93_784)
    '26:03:04'
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
