"""`grounded-seg models`: which weights there are."""

import click

from grounded_seg.cli.messages import set_up_messages


@click.group()
def models() -> None:
    """Look after weights."""


@models.command(name="list")
def list_models() -> None:
    """List the presets, what they are made of, and whether that is on this disk.

    What isn't is fetched when a preset is first used.
    """
    set_up_messages(debug=False)
    # These import rich and the hub's client, which would slow --help down.
    from rich.table import Table

    from grounded_seg.cli.console import stdout_console
    from grounded_seg.weights.presets import preset_table

    table = Table("preset", "detector", "adapter", "segmenter", "on this disk", box=None, padding=(0, 2, 0, 0))
    for name in preset_table().presets:
        table.add_row(name, *_parts_of(name))
    stdout_console().print(table)


def _parts_of(preset: str) -> tuple[str, str, str, str]:
    """Name a preset's detector, adapter and segmenter, and say whether all are here."""
    from grounded_seg.errors import WeightsError
    from grounded_seg.settings import ModelSettings
    from grounded_seg.weights.locate import is_on_disk
    from grounded_seg.weights.sources import resolve

    try:
        sources = resolve(ModelSettings(preset=preset))
    except WeightsError:
        return ("missing", "missing", "missing", "no")
    parts = (sources.detector, sources.adapter, sources.segmenter)
    are_here = all(is_on_disk(part) for part in parts if part is not None)
    detector, adapter, segmenter = ("none" if part is None else part.name for part in parts)
    return (detector, adapter, segmenter, "yes" if are_here else "not yet")
