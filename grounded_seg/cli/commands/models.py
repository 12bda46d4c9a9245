"""`grounded-seg models`: list the presets; convert and merge models and adapters."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grounded_seg.cli.messages import plain_table, set_up_messages, stdout_console
from grounded_seg.cli.options import PATH, debug_option, offline_option, option_of
from grounded_seg.settings import ModelSettings

if TYPE_CHECKING:
    from grounded_seg.weights.locate import LocatedWeights, PresetParts


@click.group()
def models() -> None:
    """List the presets; convert models and adapters; merge an adapter into a model."""


@models.command(name="list", short_help="List the presets and whether they are on this disk.")
def list_models() -> None:
    """List the presets, their parts, and whether these are on this disk.

    Missing parts are downloaded when a preset is first used. Exit code: 0 listed.
    """
    set_up_messages(debug=False)
    # This imports the hub's client, which would slow --help down.
    from grounded_seg.weights.locate import presets

    table = plain_table("preset", "detector", "adapter", "segmenter", "on this disk")
    for one in presets():
        parts = (one.detector or "missing", one.adapter or ("none" if one.detector else "missing"))
        table.add_row(one.name, *parts, one.segmenter or "missing", _whether_here(one))
    stdout_console().print(table)


@models.command(name="convert", short_help="Convert an older model or adapter to a native folder.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=PATH)
@offline_option
@debug_option
def convert_model(source: str, destination: Path, offline: bool, debug: bool) -> None:
    """Convert a Florence-2 or an adapter from the older layout to a native folder.

    SRC is a folder or a Hugging Face id: of a Florence-2 in the layout of microsoft/Florence-2-*, or of a LoRA adapter
    trained on one. DST is a new folder. An adapter is converted without its base.

    The other commands read the older layout themselves; convert for other tools, or to load faster.

    Exit code: 0 written, 1 DST can't be written, 2 usage, 4 weights missing or wrong, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports torch, which takes seconds.
    from grounded_seg.detect.model.save import convert

    convert(_located(source, "SRC", offline=offline).path, destination)
    click.echo(destination)


@models.command(name="merge", short_help="Merge an adapter into the weights of a Florence-2.")
@click.argument("base", metavar="BASE")
@click.argument("adapter", metavar="ADAPTER")
@click.argument("destination", metavar="DST", type=PATH)
@offline_option
@option_of(ModelSettings, "allow_base_mismatch", "Merge an adapter even if it was trained on another base model.")
@debug_option
def merge(base: str, adapter: str, destination: Path, offline: bool, allow_base_mismatch: bool, debug: bool) -> None:
    """Merge a LoRA adapter into the weights of a Florence-2, and write a native folder in float32.

    BASE and ADAPTER are folders or Hugging Face ids, in the native or the older layout, or the folder of a training.
    DST is a new folder.

    The merged model answers like the base with the adapter. The head shares a matrix with the word
    embeddings: an adapter of the head gives the merged model a separate head, an adapter of the embeddings is refused.

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


def _whether_here(preset: "PresetParts") -> str:
    if preset.detector is None:
        return "no"
    return "yes" if preset.is_on_disk else "not yet"
