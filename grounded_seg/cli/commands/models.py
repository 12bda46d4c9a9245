"""`grounded-seg models`: list, fetch, verify and remove weights; convert and merge models and adapters."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grounded_seg.cli.messages import (
    cells,
    interruption_explained,
    note,
    plain_table,
    set_up_messages,
    show,
    stdout_console,
)
from grounded_seg.cli.options import PATH, debug_option, offline_option, option_of
from grounded_seg.settings import ModelSettings

if TYPE_CHECKING:
    from grounded_seg.weights.locate import LocatedWeights, PresetParts


@click.group()
def models() -> None:
    """List, fetch, verify and remove weights; convert models and adapters; merge an adapter into a model."""


@models.command(name="list", short_help="List the presets, their sizes, and whether they are on this disk.")
def list_models() -> None:
    """List the presets, their parts, whether these are on this disk, and their size.

    Missing parts are downloaded when a preset is first used, or by `models fetch`. Exit code: 0 listed.
    """
    set_up_messages(debug=False)
    # This imports the hub's client, which would slow --help down.
    from grounded_seg.weights.locate import presets

    table = plain_table("preset", "detector", "adapter", "segmenter", "on this disk", "size")
    for one in presets():
        parts = (one.detector or "missing", one.adapter or ("none" if one.detector else "missing"))
        table.add_row(*cells(one.name, *parts, one.segmenter or "missing", _whether_here(one), _size(one)))
    stdout_console().print(table)


@models.command(name="fetch", short_help="Download a preset or model, into the cache or a folder.")
@click.argument("name", metavar="PRESET|ID")
@click.option("--to", "folder", metavar="DIR", type=PATH, help="Folder for plain files, to copy to another machine.")
@click.option("--update", is_flag=True, help="Take the newest version on the hub instead of the one used so far.")
@debug_option
def fetch_models(name: str, folder: Path | None, update: bool, debug: bool) -> None:
    """Download a preset, a segmenter (vit_b, vit_l, vit_h) or a Hugging Face id.

    The download resumes where it was interrupted, and its hash is checked. The version of the hub's files (the
    commit) is printed and fixed in models.lock.json in the cache: all commands use that version until --update.

    A folder made with --to works without a network on any machine: name its parts with --detector, --segmenter and
    --adapter, as printed at the end.

    HF_ENDPOINT names a mirror of the Hugging Face hub, GROUNDED_SEG_MIRROR the address of a folder with the segmenter
    files.

    Exit code: 0 all there, 1 DIR can't be written, 2 usage, 4 weights missing or wrong, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports the hub's client, which would slow --help down.
    from grounded_seg.cli.fetching import fetch_to_cache, fetch_to_folder

    how_to_resume = "what has arrived is kept; to resume, run the same command"
    with interruption_explained(lambda: how_to_resume):
        if folder is None:
            fetch_to_cache(name, update=update)
        else:
            fetch_to_folder(name, folder, update=update)


@models.command(name="verify", short_help="Compare weights on this disk with their published hashes.")
@click.argument("names", metavar="[PRESET|ID|DIR]...", nargs=-1)
@debug_option
def verify_models(names: tuple[str, ...], debug: bool) -> int:
    """Compare weights on this disk with their published hashes; without names, all that were downloaded.

    DIR is a folder that `models fetch --to` made. Nothing is downloaded.

    Exit code: 0 all right, 2 usage, 4 a file is missing or damaged, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # This imports the hub's client, which would slow --help down.
    from grounded_seg.cli.fetching import show_verified

    return show_verified(names)


@models.command(name="remove", short_help="Delete downloaded weights from this disk.")
@click.argument("name", metavar="PRESET|ID")
@debug_option
def remove_models(name: str, debug: bool) -> None:
    """Delete the downloaded weights of a preset, a segmenter or a Hugging Face id.

    A segmenter that another downloaded preset uses stays. Models of the hub are in a cache that other tools use too:
    they will have to download them again.

    Exit code: 0 deleted, or nothing was there, 2 usage, 4 a file can't be deleted.
    """
    set_up_messages(debug=debug)
    # This imports the hub's client, which would slow --help down.
    from grounded_seg.weights.stored import remove

    n_freed, kept = remove(name)
    for one in kept:
        note(f"kept {one}")
    if n_freed or kept:
        show(f"{n_freed / 1e6:.1f} MB freed")
    else:
        show(f"nothing of {name} is on this disk: nothing to delete")


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
    from grounded_seg.detect.first_layout.layout import check_convertible

    _check_destination(destination)
    folder = _located(source, "SRC", offline=offline).path
    check_convertible(folder)
    # This imports torch and transformers, which takes seconds: not before what is refused without them.
    from grounded_seg.detect.model.save import convert

    convert(folder, destination)
    show(destination)


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
    from grounded_seg.detect.model.record import check_adapter_base

    _check_destination(destination)
    weights, tuned = _located(base, "BASE", offline=offline), _located(adapter, "ADAPTER", offline=offline)
    check_adapter_base(tuned.path, weights, allow_mismatch=allow_base_mismatch)
    # This imports torch and transformers, which takes seconds: not before what is refused without them.
    from grounded_seg.detect.model.save import merge_model

    merge_model(weights.path, tuned.path, destination)
    show(destination)


def _check_destination(folder: Path) -> None:
    from grounded_seg.files import as_output_error, check_new_folder

    with as_output_error(folder, "another folder"):
        check_new_folder(folder)


def _located(given: str, argument: str, *, offline: bool) -> "LocatedWeights":
    from grounded_seg.weights.locate import locate
    from grounded_seg.weights.sources import named_source

    return locate(named_source(given, argument), is_adapter=argument == "ADAPTER", offline=offline)


def _whether_here(preset: "PresetParts") -> str:
    return "no" if preset.detector is None else "yes" if preset.is_on_disk else "not yet"


def _size(preset: "PresetParts") -> str:
    """How much of a preset is on this disk, or has to be fetched."""
    from grounded_seg.weights.stored import preset_size

    if preset.detector is None:
        return "-"
    size = preset_size(preset.name)
    least, most = (n_bytes / 1e9 for n_bytes in size.n_missing)
    return f"{size.n_here / 1e6:.0f} MB" if preset.is_on_disk else f"{least:.1f} to {most:.1f} GB to fetch"
