"""`grounded-seg models`: which weights there are, and Florence-2 models and adapters in another form."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grounded_seg.cli.messages import set_up_messages

if TYPE_CHECKING:
    from grounded_seg.weights.locate import LocatedWeights

_OFFLINE = click.option("--offline", is_flag=True, help="Fetch nothing; use only what is on this disk.")
_DEBUG = click.option(
    "--debug", is_flag=True, help="Show the traceback of an error, and what the libraries have to say."
)


@click.group()
def models() -> None:
    """List the presets; convert models and adapters, and merge them."""


@models.command(name="list", short_help="List the presets, and whether they are on this disk.")
def list_models() -> None:
    """List the presets, what they are made of, and whether that is on this disk.

    What isn't is fetched when a preset is first used. Exit code: 0 listed.
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


@models.command(name="convert", short_help="Rewrite an older model or adapter as a native folder.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@_OFFLINE
@_DEBUG
def convert_model(source: str, destination: Path, offline: bool, debug: bool) -> None:
    """Rewrite a Florence-2 or an adapter in the older layout as a native folder.

    SRC is a folder or hub id of a Florence-2 as microsoft/Florence-2-* hold it, or of a LoRA adapter that was trained
    on one; an adapter needs no base for this. DST is a new folder.

    `run` and the other commands take the older layout as it is: this is for other tools, and to save the rewriting.

    Exit code: 0 written, 1 DST can't be written, 2 usage, 4 weights missing or wrong, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports torch, which takes seconds.
    from grounded_seg.detect.model.save import convert

    convert(_located(source, "SRC", offline=offline).path, destination)
    click.echo(destination)


@models.command(name="merge", short_help="Add an adapter to the weights of a Florence-2.")
@click.argument("base", metavar="BASE")
@click.argument("adapter", metavar="ADAPTER")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@_OFFLINE
@click.option("--allow-base-mismatch", is_flag=True, help="Merge an adapter that says it was trained on another base.")
@_DEBUG
def merge(base: str, adapter: str, destination: Path, offline: bool, allow_base_mismatch: bool, debug: bool) -> None:
    """Write a Florence-2 with a LoRA adapter added to its weights, as a native folder in float32.

    BASE and ADAPTER are folders or hub ids, in the native or the older layout. DST is a new folder.

    The model answers as the base with the adapter does. An adapter of the head, which shares a matrix with the words,
    gives the merged model a head of its own; one of the words themselves is refused.

    Exit code: 0 written, 1 DST can't be written, 2 usage, 4 weights missing or wrong, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import torch, which takes seconds.
    from grounded_seg.detect.model.record import check_adapter_base
    from grounded_seg.detect.model.save import merge_model

    weights, tuned = _located(base, "BASE", offline=offline), _located(adapter, "ADAPTER", offline=offline)
    check_adapter_base(tuned.path, weights, allow_mismatch=allow_base_mismatch)
    merge_model(weights.path, tuned.path, destination)
    click.echo(destination)


def _located(given: str, argument: str, *, offline: bool) -> "LocatedWeights":
    from grounded_seg.weights.locate import locate
    from grounded_seg.weights.sources import named_source

    return locate(named_source(given, argument), is_adapter=argument == "ADAPTER", offline=offline)


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
