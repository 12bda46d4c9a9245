"""`grounded-seg train`: fine-tune the detector on a data set, as an adapter or as a full model."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from grounded_seg.cli.messages import counted, interruption_explained, note_if_demo, set_up_messages, show
from grounded_seg.cli.options import PATH, click_type, debug_option, problems_as_options, quiet_option, refuse_fractions
from grounded_seg.settings import ModelSettings, check_device_name
from grounded_seg.train.recipes import RECIPES, settings_from
from grounded_seg.train.settings import TrainSettings

if TYPE_CHECKING:
    from grounded_seg.cli.progress import WorkDisplay
    from grounded_seg.train.dry_run import DryRun
    from grounded_seg.train.training import TrainReport

_COLUMN = 15
"""Width of a column of the table."""


def _setting(flag: str, text: str, **more: Any) -> Callable[[Any], Any]:
    """Make an option without a default of its own; --help shows the one that holds without recipe and file."""
    name = flag.partition("/")[0].removeprefix("--").replace("-", "_")
    field = next(one for kind in (TrainSettings, ModelSettings) for one in fields(kind) if one.name == name)
    match field.default:
        case frozenset() as parts:
            default = ", ".join(sorted(parts))
        case tuple() as shares:
            default = "/".join(map(str, shares))
        case bool() as is_on:
            default = "on" if is_on else ""
        case value:
            default = "" if value is None else str(value)
    shown = f"  [default: {default}]" if default else ""
    return click.option(flag, default=None, help=f"{text}{shown}", **{"type": click_type(field.type), **more})


@click.command()
@click.argument("dataset", type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="Folder for the results.")
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES), case_sensitive=False),
    help="Named set of settings to start from; other options replace its values.",
)
@click.option(
    "--config", type=PATH, help="YAML, TOML or JSON file of settings; its values replace those of the recipe."
)
@_setting("--preset", "Preset whose detector is trained.", envvar="GROUNDED_SEG_PRESET", show_envvar=True)
@_setting("--detector", "Florence-2 to train instead of the preset's.", metavar="ID|DIR")
@_setting("--segmenter", "Segmenter for the masks in the report, instead of the preset's.", metavar="ID|FILE|DIR")
@_setting("--device", "Device to train on: auto, cpu, cuda, cuda:N or mps.")
@_setting("--dtype", "Dtype of the activations; trained weights are float32.")
@_setting("--offline", "Download nothing; use only what is on this disk.", is_flag=True)
@_setting(
    "--reviewed", "Train on a run: on what was accepted in its folder with `view`.", type=click.Choice(["accepted"])
)
@_setting("--split", "Percent of train, valid and test, for a data set without splits of its own.", metavar="A/B/C")
@_setting("--seed", "Random seed.")
@_setting("--prompt-form", "Ask for one class at a time, as run does, or for all at once.")
@_setting("--negative-ratio", "Number of questions about absent classes per question about a present one.")
@_setting("--negatives", "More prompts for objects that are on none of the images.", metavar="A;B")
@_setting("--image-size", "Resize images to squares of this side first.", metavar="PX")
@_setting("--max-pixels", "Refuse images of more pixels than this, before decoding.")
@_setting("--augment/--no-augment", "Flip images and change their colours, unless a label names sides or colours.")
@_setting("--strict/--no-strict", "Stop at a row that can't be used, instead of leaving it out.")
@_setting("--method", "Train a LoRA adapter, or the full model.")
@_setting("--parts", "Parts of the model to train: language, vision, projector, head.", metavar="A,B")
@_setting("--rank", "Rank of the adapter.")
@_setting("--alpha", "Scaling of the adapter, which is multiplied by alpha / rank.")
@_setting("--dropout", "Dropout of the adapter.")
@_setting("--rslora/--no-rslora", "Scale the adapter by alpha / sqrt(rank) (rsLoRA).")
@_setting("--dora/--no-dora", "Train magnitude and direction of the weights separately (DoRA).")
@_setting("--quantization", "Quantize the frozen base model to 8 or 4 bits, on a GPU.")
@_setting("--gradient-checkpointing/--no-gradient-checkpointing", "Compute activations twice, to save memory.")
@_setting("--epochs", "Number of passes over the data set.")
@_setting("--max-steps", "Stop after this many steps.")
@_setting("--batch-size", "Number of questions per batch, on each device.")
@_setting("--accumulation", "Number of batches per step (gradient accumulation).")
@_setting("--lr", "Peak learning rate.")
@_setting("--optimizer", "Optimizer; CAME takes less memory.")
@_setting("--schedule", "Learning rate schedule.")
@_setting("--warmup-steps", "Number of steps in which the learning rate rises from zero.")
@_setting("--weight-decay", "Weight decay, of matrices only.")
@_setting("--max-grad-norm", "Clip gradients to this norm.")
@_setting("--location-spread", "Smooth location targets with this standard deviation in bins; helps small models.")
@_setting(
    "--cache-features/--no-cache-features",
    "Keep image features that neither a trained vision tower nor augmentation changes.",
)
@_setting("--workers", "Number of processes that read images ahead.")
@_setting("--eval-steps", "Measure the validation loss every so many steps; 0 for after each epoch.")
@_setting("--save-steps", "Save a checkpoint every so many steps; 0 for after each epoch.")
@_setting("--keep", "Number of checkpoints to keep.")
@_setting(
    "--best-metric",
    "Validation figure that selects the best model: AP, AP50, present_rate, absent_rate, loss, exact_match, "
    "edit_distance.",
)
@_setting("--patience", "Stop after this many epochs without a better figure.")
@_setting("--eval-images", "Number of validation images that predictions are made for.")
@_setting("--log-to", "More places to log figures to: tensorboard, wandb.", metavar="A,B")
@_setting("--report/--no-report", "Compare base and tuned model on the test split at the end.")
@_setting("--retention", "COCO file of objects that the base knows; the report says how much of it is kept.")
@click.option("--resume", is_flag=True, help="Resume an interrupted training from its last checkpoint.")
@click.option("--dry-run", is_flag=True, help="Print counts and draw examples of the training data, without training.")
@quiet_option
@debug_option
def train(
    recipe: str | None, config: Path | None, resume: bool, dry_run: bool, quiet: bool, debug: bool, **options: Any
) -> int:
    """Fine-tune the detector on DATASET, a folder in JSONL, COCO or YOLO format, or one file beside its images.

    With --reviewed it is the folder of a run that people looked through.

    The folder holds train, valid and test, each with `annotations.jsonl` or `_annotations.coco.json`; or one such file,
    which is split at random; or YOLO's `data.yaml`. The best adapter is written to adapter in the output folder, for
    `run --adapter`.

    Exit code: 0 trained, 1 the output folder can't be written, 2 usage, 3 unreadable data set, 4 weights missing or
    wrong, 5 device, 130 interrupted.
    """
    set_up_messages(debug=debug)
    # Options that aren't given mustn't replace what the file, the recipe or the environment says.
    given = _from_source(ParameterSource.COMMANDLINE, options)
    refuse_fractions(given.get("split", ""))
    # What is wrong may stand in the file, where it has no dashes.
    with nullcontext() if config else problems_as_options():
        settings = settings_from(recipe, config, given, environment=_from_source(ParameterSource.ENVIRONMENT, options))
    # These import numpy and rich, which would slow --help down. torch comes last: it takes seconds.
    from grounded_seg.cli.progress import WorkDisplay
    from grounded_seg.device.memory import collection_paused
    from grounded_seg.train.data.data_set import check_is_there

    check_is_there(settings.dataset)
    check_device_name(settings.models.device)
    note_if_demo(settings.models, boxes_only=True)

    with WorkDisplay(quiet=quiet) as display:
        table = _Table(display)
        if dry_run:
            with collection_paused():
                from grounded_seg.train.dry_run import dry_run as look

            _show_dry_run(look(settings, display.show, resume=resume))
            return 0
        with collection_paused():
            from grounded_seg.train.training import train as start

        def explain() -> str | None:
            if not any((settings.output / "checkpoints").glob("checkpoint-*")):
                return None
            return f"checkpoints are kept; to resume, run the same command with --resume ({settings.output})"

        with interruption_explained(explain):
            report = start(settings, resume=resume, watcher=table.add, progress=table.show_progress)
    _show_report(report)
    return 0


def _from_source(source: ParameterSource, options: Mapping[str, Any]) -> dict[str, Any]:
    context = click.get_current_context()
    return {name: value for name, value in options.items() if context.get_parameter_source(name) is source}


class _Table:
    """A table that grows by one line of figures per validation, with the mean loss of the steps before it."""

    def __init__(self, display: "WorkDisplay") -> None:
        self._display = display
        self._losses: list[float] = []
        self._titles: list[str] = []

    def add(self, row: Mapping[str, float]) -> None:
        if "loss" in row:
            self._losses.append(row["loss"])
            return
        mean = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        figures = {"epoch": row["epoch"], "loss": mean}
        figures |= {name: value for name, value in row.items() if name.startswith("valid_")}
        self._losses = []
        self._display.clear()
        # Only the loss is measured on both splits.
        titles = ["step", *(name if name == "valid_loss" else name.removeprefix("valid_") for name in figures)]
        cells = [str(row["step"]), *(f"{value:.4g}" for value in figures.values())]
        for line in [cells] if titles == self._titles else [titles, cells]:
            show("".join(cell.rjust(_COLUMN) for cell in line))
        self._titles = titles

    def show_progress(self, what: str, n_done: int, n_all: int) -> None:
        """Show how far the work has come, with the last step's loss."""
        more = f"loss {self._losses[-1]:.4g}" if what == "steps" and self._losses else ""
        self._display.show(what, n_done, n_all, more)


def _show_report(report: "TrainReport") -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in report.figures.items())
    show(f"\n{counted(report.n_steps, 'step')}, {report.n_trained:,} trainable parameters, {report.seconds:.0f} s")
    show(f"best: {figures}")
    for path in (report.result, report.folder.metrics, report.folder.loss_picture, report.folder.report):
        if path.exists():
            show(path)


def _show_dry_run(found: "DryRun") -> None:
    # This imports numpy, which would slow --help down.
    from grounded_seg.train.data.records import fault_lines

    for line in (*found.notes, *fault_lines(found.faults), found.features):
        show(line)
    for name, split in found.splits.items():
        boxes = ", ".join(f"{label} {n}" for label, n in split.boxes.items()) or "none"
        images = f"{counted(split.n_images, 'image')} ({split.n_background} without objects)"
        show(f"{name}: {images}, {counted(split.n_texts, 'text')}, boxes: {boxes}")
    show(f"{counted(found.n_questions, 'question')} per epoch, {found.n_negatives} of them about absent objects")
    show(f"{counted(found.n_steps, 'step')}, {found.steps_per_epoch} per epoch")
    for what, (shortest, median, longest) in (("question", found.question_tokens), ("answer", found.answer_tokens)):
        show(f"{what} tokens: {shortest} to {longest}, median {median}")
    for question in found.examples:
        show(f"\n{question.example.image.name}: {question.text}\n  {question.answer or '(nothing)'}")
    for path in found.pictures:
        show(path)
