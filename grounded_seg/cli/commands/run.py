"""`grounded-seg run`: a sentence and images in; boxes, masks and COCO annotations out."""

from pathlib import Path
from typing import Any

import click

from grounded_seg.cli.messages import error, note, set_up_messages
from grounded_seg.cli.options import (
    EnumChoice,
    detect_options,
    model_options,
    segment_options,
    settings_from,
    tile_options,
    tiles_from,
)
from grounded_seg.errors import InterruptionError, OutputError, UsageError
from grounded_seg.settings import DetectSettings, Drawn, ModelSettings, OnError, RunSettings, SegmentSettings

DEMO_NOTE = "the demo weights know rendered scenes only; for photographs use --preset base-ft or large-ft"


@click.command()
@click.argument("prompt")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("grounded-seg-out"),
    show_default=True,
    help="Folder for the results.",
)
@model_options
@detect_options
@segment_options
@tile_options
@click.option("--boxes-only", is_flag=True, help="Stop after the boxes: no masks.")
@click.option(
    "--batch-size",
    type=int,
    default=RunSettings.batch_size,
    show_default=True,
    help="Images that go through the models together.",
)
@click.option(
    "--recursive/--no-recursive", default=RunSettings.recursive, show_default=True, help="Search sub-folders too."
)
@click.option(
    "--max-pixels",
    type=int,
    default=RunSettings.max_pixels,
    show_default=True,
    help="Skip images of more pixels before they are decoded.",
)
@click.option("--resume", is_flag=True, help="Go on with a run into the output folder that was cut off.")
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run in the output folder.")
@click.option(
    "--on-error",
    type=EnumChoice(OnError),
    default=RunSettings.on_error.value,
    show_default=True,
    help="What to do at an image of a folder that can't be read.",
)
@click.option(
    "--save",
    type=EnumChoice(Drawn),
    multiple=True,
    default=(Drawn.OVERLAY.value,),
    show_default=True,
    help="Pictures to write for each image; repeat it for several.",
)
@click.option("--json", "json_lines", is_flag=True, help="Print a JSON line for each image instead of the table.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and what the libraries have to say.")
def run(prompt: str, paths: tuple[str, ...], json_lines: bool, debug: bool, **options: Any) -> int:
    """Find what PROMPT names in images: boxes, masks, COCO.

    PROMPT is what to look for: "red car". Several are separated by semicolons: "red car; traffic light". @FILE is a
    YAML file with a line `prompt: class` for each.

    PATH is an image or a folder of images: jpg, jpeg, png, webp, bmp, tif, tiff, gif. @FILE is a list of paths, one a
    line.

    Exit code: 0 all done, 1 images skipped, 2 usage, 3 unreadable input, 4 weights missing or wrong, 5 device,
    130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and rich, which would slow --help down.
    from grounded_seg.cli.run_display import RunDisplay
    from grounded_seg.detect.prompts import read_prompts
    from grounded_seg.geometry.opencv import opencv
    from grounded_seg.images.find import given_from
    from grounded_seg.runs.folder import RunFolder
    from grounded_seg.runs.run import run_images
    from grounded_seg.weights.sources import resolve

    # Masks are cleaned and drawn with it: without it, say so before anything is loaded.
    opencv()
    prompts = read_prompts(prompt)
    settings = _settings_from(options)
    if resolve(settings.models, boxes_only=settings.boxes_only).is_demo:
        note(DEMO_NOTE)
    given = [given_from(path) for path in paths]
    folder = RunFolder(settings.output)
    # Together the two are refused.
    again = "--resume instead of --overwrite" if settings.overwrite else "--resume"
    way_on = f"what was done is kept, and the same command with {again} goes on"
    display = RunDisplay(json_lines=json_lines)
    try:
        with display:
            report = run_images(prompts, given, settings, display, progress=display.fetching)
    except KeyboardInterrupt as interrupt:
        told = way_on if display.has_started else "no image was asked about yet"
        raise InterruptionError(f"interrupted; {told} ({settings.output})") from interrupt
    except OutputError as problem:
        if not display.has_started:
            raise
        raise OutputError(f"{problem}; {way_on}") from problem
    display.summarise(report, folder.written())
    if report.n_skipped:
        n_images = report.n_done + report.n_skipped
        error(f"{report.n_skipped} of {n_images} images were skipped; {folder.journal} says why")
    return report.exit_code


def _settings_from(options: dict[str, Any]) -> RunSettings:
    """Build the settings from the options, all but those that only the command line knows.

    Raises:
        UsageError: If values are out of range or don't go together.
    """
    save = frozenset(options["save"]) - {Drawn.NONE}
    if Drawn.NONE in options["save"] and save:
        raise UsageError(f"--save none doesn't go with --save {min(save)}; leave one of them out")
    if options["boxes_only"] and Drawn.MASKS in save:
        raise UsageError("--save masks doesn't go with --boxes-only, which gives none; leave one of them out")
    return RunSettings(
        output=options["output"],
        models=settings_from(ModelSettings, options),
        detect=settings_from(DetectSettings, options),
        segment=settings_from(SegmentSettings, options),
        tiles=tiles_from(options),
        boxes_only=options["boxes_only"],
        batch_size=options["batch_size"],
        recursive=options["recursive"],
        max_pixels=options["max_pixels"],
        resume=options["resume"],
        overwrite=options["overwrite"],
        on_error=options["on_error"],
        save=save,
    )
