"""`grounded-seg run`: a sentence and images in; boxes, masks and COCO annotations out."""

from functools import partial
from typing import Any

import click

from grounded_seg.cli.messages import counted, demo_note, error, hint, interruption_explained, note, set_up_messages
from grounded_seg.cli.options import (
    EnumChoice,
    batch_size_option,
    debug_option,
    model_options,
    option_of,
    quiet_option,
    results_option,
    settings_from,
    stage_options,
    worker_options,
)
from grounded_seg.errors import OutputError, UploadError, WorkerError
from grounded_seg.settings import Drawn, RunSettings


@click.command()
@click.argument("prompt")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@option_of(RunSettings, "output", "Folder for the results.", "-o", "--output")
@model_options
@stage_options("Drop boxes below this score.")
@option_of(RunSettings, "boxes_only", "Find boxes only, and make no masks.")
@batch_size_option
@worker_options
@option_of(RunSettings, "recursive", "Look for images in sub-folders too.", "--recursive/--no-recursive")
@option_of(RunSettings, "max_pixels", "Skip images of more pixels than this, before decoding.")
@option_of(RunSettings, "resume", "Resume an interrupted run in the output folder.")
@option_of(RunSettings, "overwrite", "Replace the results of an earlier run in the output folder.")
@option_of(
    RunSettings,
    "upload",
    "Copy the finished run to this folder of a bucket, such as s3://BUCKET/FOLDER.",
    metavar="URL",
)
@option_of(RunSettings, "on_error", "Skip an image of a folder that can't be read, or stop there.")
@click.option(
    "--save",
    type=EnumChoice(Drawn),
    multiple=True,
    default=(Drawn.OVERLAY.value,),
    show_default=True,
    help="Pictures to write for each image; repeat the option for several kinds.",
)
@results_option
@option_of(RunSettings, "shard", "Take only the K-th of N parts of the images; merge-runs joins them.", metavar="K/N")
@click.option("--json", "json_lines", is_flag=True, help="Print one JSON line per image instead of the table.")
@quiet_option
@debug_option
def run(prompt: str, paths: tuple[str, ...], json_lines: bool, quiet: bool, debug: bool, **options: Any) -> int:
    """Find what PROMPT names in images: boxes, masks, COCO.

    PROMPT is what to look for: "red car". Separate several prompts with semicolons: "red car; traffic light". @FILE
    reads them from a YAML file with one line `prompt: class` per prompt, or class, threshold, not, min_area and
    max_detections under the prompt.

    PATH is an image or a folder of images: jpg, jpeg, png, webp, bmp, tif, tiff, gif, heic, heif, hif, avif. A pattern
    in quotes is expanded: 'photos/*.png'. @FILE reads paths from a text file, one per line; @- reads them from the
    standard input; @FILE.parquet:COLUMN reads a column. s3://, gs:// and az:// name images and folders of a bucket,
    https:// an image, 'shard-{000..099}.tar' the images in tars.

    Exit code: 0 all done, 1 images skipped or results can't be written, 2 usage, 3 unreadable input, 4 weights missing
    or wrong, 5 device, 130 interrupted.
    """
    set_up_messages(debug=debug, hints=not quiet)
    # These import numpy and rich, which would slow --help down.
    from grounded_seg.cli.run_display import RunDisplay
    from grounded_seg.cli.slips import check_order, hint_about
    from grounded_seg.detect.prompts import read_prompts
    from grounded_seg.geometry.masks import opencv
    from grounded_seg.images.given import given_from
    from grounded_seg.runs.folder import RunFolder
    from grounded_seg.runs.run import run_images

    # Masks are cleaned and drawn with it: without it, say so before anything is loaded.
    opencv()
    prompts = read_prompts(prompt)
    settings = settings_from(RunSettings, options)
    given = [given_from(path) for path in paths]
    check_order(prompt, paths)
    told = {
        note: demo_note(settings.models, boxes_only=settings.boxes_only),
        hint: None if quiet else hint_about(prompt, paths, prompts.prompts),
    }
    folder = RunFolder(settings.output)
    option = "--resume instead of --overwrite" if settings.overwrite else "--resume"
    how_to_resume = f"finished images are kept; to resume, run the same command with {option}"
    at_start = [partial(tell, text) for tell, text in told.items() if text is not None]
    display = RunDisplay(json_lines=json_lines, boxes_only=settings.boxes_only, quiet=quiet, at_start=at_start)

    def explain() -> str:
        return f"{how_to_resume if display.has_started else 'no image was finished'} ({settings.output})"

    try:
        with interruption_explained(explain), display:
            counts = run_images(prompts, given, settings, display, progress=display.fetching)
    except (OutputError, WorkerError) as problem:
        if not display.has_started or isinstance(problem, UploadError):
            raise
        raise type(problem)(f"{problem}; {how_to_resume}") from problem
    display.summarise(counts, folder.written())
    if counts.n_skipped:
        skipped = f"{counts.n_skipped} of {counted(counts.n_images, 'image')}"
        were = "was" if counts.n_skipped == 1 else "were"
        error(f"{skipped} {were} skipped; the reasons are in {folder.journal}")
    return counts.exit_code
