"""`grounded-seg eval`: COCO metrics of both stages, and why they are what they are."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grounded_seg.cli.commands.run import DEMO_NOTE
from grounded_seg.cli.messages import note, set_up_messages
from grounded_seg.cli.options import (
    detect_options,
    model_options,
    segment_options,
    settings_from,
    tile_options,
    tiles_from,
)
from grounded_seg.errors import InterruptionError, UsageError
from grounded_seg.settings import DetectSettings, ModelSettings, RunSettings, SegmentSettings

if TYPE_CHECKING:
    from grounded_seg.evaluation.evaluate import Evaluation


@click.command(name="eval")
@click.argument("ground_truth", metavar="GT.json", type=click.Path(path_type=Path))
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the data set's images: ask the models.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Score these instead: a run's annotations.json or results.jsonl, finished or not, or a COCO result list.",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="YAML file with a line `prompt: class` for each; without it the class names are asked.",
)
@click.option(
    "--absent", type=int, help="Ask each image about so many classes that it hasn't; without it about all of them."
)
@model_options
@partial(
    detect_options,
    threshold_help="From which score on a box says that something is there: for presence, confusion and the page of "
    "the worst images. Average precision takes every box.",
)
@segment_options
@tile_options
@click.option("--boxes-only", is_flag=True, help="Score the boxes only: no masks.")
@click.option(
    "--batch-size",
    type=int,
    default=1,
    show_default=True,
    help="Images that go through the models together; one by one with --absent, which asks each its own questions.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder that keeps the models' answers, in a file of eval's own.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with eval's answers in the output folder; a run is scored with --predictions."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything measured to this file.")
@click.option(
    "--plots", type=click.Path(path_type=Path), help="Draw curves, scores, confusion and worst images to this folder."
)
@click.option(
    "--intervals",
    "n_draws",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Give 95 % intervals from so many draws of the images; 1000 settles two digits.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and what the libraries have to say.")
def evaluate(
    ground_truth: Path,
    images: Path | None,
    predictions: Path | None,
    json_file: Path | None,
    plots: Path | None,
    debug: bool,
    **options: Any,
) -> int:
    """Measure both stages on GT.json, a COCO data set.

    With --images the models are asked, with --predictions a file is scored.

    Exit code: 0 measured, 1 a file can't be written, 2 usage, 3 unreadable input, 4 weights missing or wrong, 5 device,
    130 interrupted. An image that can't be read ends it: none is skipped.
    """
    set_up_messages(debug=debug)
    # These import numpy and rich, which would slow --help down.
    from grounded_seg.cli.counted import counted
    from grounded_seg.cli.eval_tables import show_evaluation
    from grounded_seg.evaluation.evaluate import EvaluationSettings
    from grounded_seg.evaluation.evaluate import evaluate as measure
    from grounded_seg.scoring.plots import check_can_plot

    if plots is not None:
        check_can_plot()
    settings = EvaluationSettings(
        ground_truth=ground_truth,
        source=_run_settings(options) if predictions is None else _only_scored(predictions, options),
        images=images,
        output=options["output"],
        score_threshold=settings_from(DetectSettings, options).score_threshold,
        prompts=options["prompts"],
        n_absent=options["absent"],
        boxes_only=options["boxes_only"],
        n_resamples=options["n_draws"],
    )
    try:
        with counted("images") as progress:
            evaluation = measure(settings, progress)
    except KeyboardInterrupt as interrupt:
        if options["output"] is None:
            raise
        raise InterruptionError(
            f"interrupted; answers so far are kept, and the same command with --resume goes on ({options['output']})"
        ) from interrupt
    for line in evaluation.notes:
        note(line)
    show_evaluation(evaluation)
    written = [] if json_file is None else [_write_json(evaluation, json_file)]
    written += [] if plots is None else _draw(evaluation, images, plots)
    for path in written:
        click.echo(path)
    return 0


def _only_scored(predictions: Path, options: dict[str, Any]) -> Path:
    """Refuse what only goes with asking the models."""
    if options["output"] is not None or options["resume"]:
        raise UsageError("--output and --resume keep what the models answer; they don't go with --predictions")
    return predictions


def _run_settings(options: dict[str, Any]) -> RunSettings:
    """Build the settings of asking the models."""
    from grounded_seg.weights.sources import resolve

    models = settings_from(ModelSettings, options)
    if resolve(models, boxes_only=options["boxes_only"]).is_demo:
        note(DEMO_NOTE)
    return RunSettings(
        models=models,
        detect=settings_from(DetectSettings, options),
        segment=settings_from(SegmentSettings, options),
        tiles=tiles_from(options),
        boxes_only=options["boxes_only"],
        batch_size=options["batch_size"],
        resume=options["resume"],
    )


def _write_json(evaluation: "Evaluation", path: Path) -> Path:
    from grounded_seg.scoring.json_report import report_of, write_report

    report = report_of(evaluation.scores, evaluation.speed, evaluation.notes, evaluation.made_with)
    write_report(report, path)
    return path


def _draw(evaluation: "Evaluation", images: Path | None, folder: Path) -> list[Path]:
    from grounded_seg.evaluation.worst_images import write_worst_page
    from grounded_seg.scoring.plots import write_plots

    written = write_plots(evaluation.scores, folder)
    if images is None:
        note("the page of the worst images needs the images; name their folder with --images")
        return written
    return written + write_worst_page(evaluation.scores, evaluation.predictions, images, folder)
