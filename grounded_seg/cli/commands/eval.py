"""`grounded-seg eval`: COCO metrics of both stages, with error types and presence figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grounded_seg.cli.messages import counted, interruption_explained, note, note_if_demo, set_up_messages
from grounded_seg.cli.options import (
    COUNT,
    PATH,
    batch_size_option,
    debug_option,
    max_pixels_option,
    model_options,
    settings_from,
    stage_options,
)
from grounded_seg.errors import UsageError
from grounded_seg.settings import DetectSettings, RunSettings

if TYPE_CHECKING:
    from grounded_seg.evaluation.evaluate import Evaluation


@click.command(name="eval")
@click.argument("ground_truth", metavar="GT.json", type=PATH)
@click.option("--images", type=PATH, help="Folder of the data set's images; the models are run on them.")
@click.option(
    "--predictions",
    type=PATH,
    help="Score this file instead of running the models: a run's annotations.json or results.jsonl, finished or not, "
    "or a COCO result list.",
)
@click.option(
    "--prompts",
    type=PATH,
    help="YAML file with one line `prompt: class` per prompt; without it the class names are the prompts.",
)
@click.option(
    "--absent",
    type=int,
    help="Ask each image about this many classes that it doesn't show; without this option, about all of them.",
)
@model_options
@stage_options(
    "Minimum score for a box to count as found, in presence figures, confusion matrix and worst images; average "
    "precision uses all boxes."
)
@click.option("--boxes-only", is_flag=True, help="Score boxes only, and make no masks.")
@batch_size_option
@max_pixels_option
@click.option(
    "-o", "--output", type=PATH, help="Folder that keeps the models' answers, so that the evaluation can be resumed."
)
@click.option("--resume", is_flag=True, help="Resume an interrupted evaluation in the output folder.")
@click.option("--json", "json_file", type=PATH, help="Write all results to this JSON file.")
@click.option("--plots", type=PATH, help="Draw curves, scores, confusion matrix and worst images into this folder.")
@click.option(
    "--intervals",
    "n_draws",
    type=COUNT,
    default=0,
    show_default=True,
    help="Number of bootstrap resamples of the images for 95 % intervals; 1000 makes two digits stable, 0 gives no "
    "intervals.",
)
@debug_option
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

    With --images the models are run on the images; with --predictions a file is scored. No image is skipped: one that
    can't be read ends the evaluation.

    Exit code: 0 measured, 1 a file can't be written, 2 usage, 3 unreadable input, 4 weights missing or wrong, 5 device,
    130 interrupted.
    """
    set_up_messages(debug=debug)
    # These import numpy and rich, which would slow --help down.
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
    output = options["output"]
    how_to_resume = f"answers so far are kept; to resume, run the same command with --resume ({output})"
    with interruption_explained(lambda: None if output is None else how_to_resume), counted("images") as progress:
        evaluation = measure(settings, progress)
    for line in evaluation.notes:
        note(line)
    show_evaluation(evaluation)
    written = [] if json_file is None else [_write_json(evaluation, json_file)]
    written += [] if plots is None else _draw(evaluation, images, plots)
    for path in written:
        click.echo(path)
    return 0


def _only_scored(predictions: Path, options: dict[str, Any]) -> Path:
    """Give the file to score, and refuse options that need the models."""
    if options["output"] is not None or options["resume"]:
        raise UsageError("--output and --resume keep the models' answers; leave them out with --predictions")
    return predictions


def _run_settings(options: dict[str, Any]) -> RunSettings:
    """Build the settings for running the models."""
    settings = settings_from(RunSettings, {name: value for name, value in options.items() if name != "output"})
    note_if_demo(settings.models, boxes_only=settings.boxes_only)
    return settings


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
        note("the worst images can't be shown without the images; name their folder with --images")
        return written
    return written + write_worst_page(evaluation.scores, evaluation.predictions, images, folder)
