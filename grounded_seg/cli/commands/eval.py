"""`grounded-seg eval`: COCO metrics of both stages; `compare`: two reports of eval on the same data set."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grounded_seg.cli.messages import demo_note, interruption_explained, note, set_up_messages, show
from grounded_seg.cli.options import (
    COUNT,
    PATH,
    batch_size_option,
    click_type,
    debug_option,
    max_pixels_option,
    model_options,
    quiet_option,
    settings_from,
    stage_options,
    worker_options,
)
from grounded_seg.errors import UsageError
from grounded_seg.settings import DetectSettings, Reviewed, RunSettings

if TYPE_CHECKING:
    from grounded_seg.evaluation.evaluate import Evaluation


def _intervals_option(default: int) -> Callable[[Any], Any]:
    text = "Number of bootstrap resamples of the images for 95 % intervals; 1000 makes two digits stable, 0 gives none."
    return click.option("--intervals", "n_draws", type=COUNT, default=default, show_default=True, help=text)


@click.command(name="eval")
@click.argument("ground_truth", metavar="GT.json", type=PATH)
@click.option("--images", type=PATH, help="Folder of the data set's images; the models are run on them.")
@click.option(
    "--predictions",
    type=PATH,
    help="Score this file instead of running the models: a run's folder, its annotations.json or results.jsonl, "
    "finished or not, or a COCO result list.",
)
@click.option(
    "--reviewed",
    type=click_type(Reviewed),
    help="Of a run's folder score what people decided on in `view`: accepted instances, those not rejected, or those "
    "undecided.",
)
@click.option(
    "--prompts", type=PATH, help="YAML file of prompts and their classes, as run takes it; by default the class names."
)
@click.option("--absent", type=int, help="Number of absent classes to ask about per image; by default all of them.")
@model_options
@stage_options(
    "Minimum score for a box to count as found, in presence figures, confusion matrix and worst images; average "
    "precision uses all boxes."
)
@click.option("--boxes-only", is_flag=True, help="Score boxes only, and make no masks.")
@batch_size_option
@worker_options
@max_pixels_option
@click.option("-o", "--output", type=PATH, help="Folder that keeps the predictions, to resume the evaluation.")
@click.option("--resume", is_flag=True, help="Resume an interrupted evaluation in the output folder.")
@click.option("--json", "json_file", type=PATH, help="Write all results to this JSON file.")
@click.option(
    "--suggest",
    type=PATH,
    help="Write a file of classes with the score threshold of best F1 for each class, for run @FILE.",
)
@click.option("--plots", type=PATH, help="Draw curves, scores, confusion matrix and worst images into this folder.")
@_intervals_option(0)
@quiet_option
@debug_option
def evaluate(
    ground_truth: Path,
    images: Path | None,
    predictions: Path | None,
    json_file: Path | None,
    suggest: Path | None,
    plots: Path | None,
    quiet: bool,
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
    from grounded_seg.cli.progress import WorkDisplay
    from grounded_seg.cli.slips import check_output_files
    from grounded_seg.evaluation.evaluate import EvaluationSettings
    from grounded_seg.evaluation.evaluate import evaluate as measure
    from grounded_seg.scoring.plots import check_can_plot

    if plots is not None:
        check_can_plot()
    output = options["output"]
    inputs = {"GT.json": ground_truth, "--predictions": predictions, "--prompts": options["prompts"]}
    inputs |= {"--calibration": options["calibration"], "--output": output}
    check_output_files({"--json": json_file, "--suggest": suggest}, inputs)
    settings = EvaluationSettings(
        ground_truth=ground_truth,
        source=_run_settings(options) if predictions is None else _only_scored(predictions, options),
        images=images,
        output=output,
        score_threshold=settings_from(DetectSettings, options).score_threshold,
        prompts=options["prompts"],
        n_absent=options["absent"],
        boxes_only=options["boxes_only"],
        n_resamples=options["n_draws"],
        reviewed=options["reviewed"],
    )
    how_to_resume = f"predictions so far are kept; to resume, run the same command with --resume ({output})"
    with interruption_explained(lambda: how_to_resume if output else None), WorkDisplay(quiet=quiet) as display:
        progress = display.of("images")
        if isinstance(settings.source, RunSettings):
            progress = _after_demo_note(settings.source, progress)
        evaluation = measure(settings, progress)
    for line in evaluation.notes:
        note(line)
    _tell(evaluation, images, json_file, suggest, plots)
    return 0


@click.command()
@click.argument("first", metavar="A.json", type=PATH)
@click.argument("second", metavar="B.json", type=PATH)
@_intervals_option(1000)
@debug_option
def compare(first: Path, second: Path, n_draws: int, debug: bool) -> int:
    """Print as Markdown what changed from A.json to B.json, two files of `eval --json`.

    Both must be measured on the same data set, such as a base and a tuned model, or two presets.

    Exit code: 0 compared, 2 usage, 3 unreadable or different inputs.
    """
    set_up_messages(debug=debug)
    # These import numpy and pycocotools, which would slow --help down.
    from grounded_seg.scoring.compare import compare as compared
    from grounded_seg.scoring.compare import markdown_of
    from grounded_seg.scoring.json_report import read_report

    show(markdown_of(compared(read_report(first), read_report(second), n_draws)), end="")
    return 0


def _only_scored(predictions: Path, options: dict[str, Any]) -> Path:
    if options["output"] is not None or options["resume"]:
        raise UsageError("--output and --resume keep the models' predictions; leave them out with --predictions")
    if options["calibration"] is not None:
        raise UsageError("--calibration is for asking the models; give it to the run whose --predictions are scored")
    return predictions


def _run_settings(options: dict[str, Any]) -> RunSettings:
    return settings_from(RunSettings, {name: value for name, value in options.items() if name != "output"})


def _after_demo_note(settings: RunSettings, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Say what the demo weights can't do when the images begin, and not before an error."""
    notes = [demo_note(settings.models, boxes_only=settings.boxes_only)]

    def show(n_done: int, n_all: int) -> None:
        if notes and (text := notes.pop()) is not None:
            note(text)
        progress(n_done, n_all)

    return show


def _tell(
    evaluation: "Evaluation", images: Path | None, json_file: Path | None, suggest: Path | None, plots: Path | None
) -> None:
    """Write the files, then print the tables and where the files are."""
    from grounded_seg.cli.eval_tables import show_evaluation
    from grounded_seg.scoring.json_report import write_report

    written: list[Path] = []
    try:
        # First, as a closed or full standard output doesn't take the tables.
        if json_file is not None:
            write_report(evaluation.report(), json_file)
            written.append(json_file)
        if suggest is not None:
            written.append(evaluation.suggest(suggest))
        if plots is not None:
            written += _draw(evaluation, images, plots)
    finally:
        # Also where a file can't be written: measuring took long.
        show_evaluation(evaluation)
        for path in written:
            show(path)


def _draw(evaluation: "Evaluation", images: Path | None, folder: Path) -> list[Path]:
    from grounded_seg.evaluation.worst_images import write_worst_page
    from grounded_seg.scoring.plots import write_plots

    written = write_plots(evaluation.scores, folder)
    if images is None:
        note("the worst images can't be shown without the images; name their folder with --images")
        return written
    return written + write_worst_page(evaluation.scores, evaluation.predictions, images, folder)
