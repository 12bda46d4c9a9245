"""`grounded-seg train`: a data set in, an adapter for the detector out."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from grounded_seg.cli.commands.run import DEMO_NOTE
from grounded_seg.cli.messages import note, set_up_messages
from grounded_seg.cli.options import EnumChoice
from grounded_seg.errors import InterruptionError
from grounded_seg.settings import ModelSettings, Precision
from grounded_seg.train.recipes import RECIPES, settings_from
from grounded_seg.train.settings import Method, OptimizerName, PromptForm, Quantization, Schedule, TrainSettings

if TYPE_CHECKING:
    from grounded_seg.train.dry_run import DryRun
    from grounded_seg.train.training import TrainReport

_COLUMN = 15
"""Width of a column of the table."""


def _setting(flag: str, text: str, **more: Any) -> Callable[[Any], Any]:
    """Make an option whose default is the recipe's, the file's or the setting's own, which --help shows."""
    name = flag.partition("/")[0].removeprefix("--").replace("-", "_")
    own = getattr(TrainSettings, name, getattr(ModelSettings, name, None))
    if isinstance(own, frozenset):
        own = ", ".join(sorted(own))
    elif isinstance(own, tuple):
        own = "/".join(map(str, own))
    own = {True: "on", False: None}.get(own, own) if isinstance(own, bool) else own
    shown = "" if own in (None, "") else f"  [default: {own}]"
    return click.option(flag, default=None, help=f"{text}{shown}", **more)


def _choice(kind: type[StrEnum]) -> EnumChoice:
    return EnumChoice(kind)


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="Settings by name, under all that is given here.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML, TOML or JSON file of settings, over the recipe.")
@_setting("--preset", "Whose detector is tuned.", envvar="GROUNDED_SEG_PRESET", show_envvar=True)
@_setting("--detector", "A Florence-2 instead of the preset's.", metavar="ID|DIR")
@_setting("--segmenter", "For the masks of the report.", metavar="ID|FILE|DIR")
@_setting("--device", "auto, cpu, cuda, cuda:N or mps.")
@_setting("--dtype", "Number format of the activations; weights learn in float32.", type=_choice(Precision))
@_setting("--offline", "Fetch nothing; use only what is on this disk.", is_flag=True)
@_setting("--split", "Percent of train, valid and test, where the data set lacks any.", metavar="A/B/C")
@_setting("--seed", "Of everything that is drawn.", type=int)
@_setting("--prompt-form", "Ask for one class at a time, as run does, or for all at once.", type=_choice(PromptForm))
@_setting("--negative-ratio", "Questions about absent classes for each one about a present one.", type=float)
@_setting("--negatives", "More things that are on none of the images.", metavar="A;B")
@_setting("--image-size", "Squeeze images to squares of this side first.", type=int, metavar="PX")
@_setting("--augment/--no-augment", "Flip images and change their colours where no label speaks of that.")
@_setting("--strict/--no-strict", "Stop at a row that can't be used, instead of leaving it out.")
@_setting("--method", "An adapter, or the weights themselves.", type=_choice(Method))
@_setting("--parts", "What is trained: language, vision, projector, head.", metavar="A,B")
@_setting("--rank", "Of the adapter.", type=int)
@_setting("--alpha", "Strength of the adapter: it counts alpha / rank times.", type=float)
@_setting("--dropout", "Of the adapter.", type=float)
@_setting("--rslora/--no-rslora", "Count the adapter alpha / sqrt(rank) times.")
@_setting("--dora/--no-dora", "Learn direction and length of the weights apart.")
@_setting("--quantization", "Keep the frozen base in fewer bits.", type=_choice(Quantization))
@_setting("--gradient-checkpointing/--no-gradient-checkpointing", "Less memory, more time.")
@_setting("--epochs", "Passes over the data set.", type=int)
@_setting("--max-steps", "Stop after so many steps.", type=int)
@_setting("--batch-size", "Questions in one pass, on each device.", type=int)
@_setting("--accumulation", "Passes that make one step.", type=int)
@_setting("--lr", "Highest learning rate.", type=float)
@_setting("--optimizer", "CAME takes less memory.", type=_choice(OptimizerName))
@_setting("--schedule", "How the learning rate falls.", type=_choice(Schedule))
@_setting("--warmup-steps", "Steps in which it first rises.", type=int)
@_setting("--weight-decay", "Of matrices.", type=float)
@_setting("--max-grad-norm", "Longest gradient.", type=float)
@_setting("--location-spread", "Count bins so near to the right one as nearly right; helps small models.", type=float)
@_setting("--workers", "Processes that read images ahead.", type=int)
@_setting("--eval-steps", "Steps between validation losses; 0 for epochs only.", type=int)
@_setting("--save-steps", "Steps between checkpoints; 0 for epochs only.", type=int)
@_setting("--keep", "Checkpoints kept.", type=int)
@_setting(
    "--best-metric",
    "Figure that chooses the best: AP, AP50, present_rate, absent_rate, loss, exact_match, edit_distance.",
)
@_setting("--patience", "Stop after so many epochs without a better one.", type=int)
@_setting("--eval-images", "Images of the validation that answers are generated for.", type=int)
@_setting("--log-to", "Further loggers: tensorboard, wandb.", metavar="A,B")
@_setting("--report/--no-report", "Compare base and tuned on the test split at the end.")
@_setting(
    "--retention", "COCO file of what the base knew: the report says what is left.", type=click.Path(path_type=Path)
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run's folder.")
@click.option("--dry-run", is_flag=True, help="Only say and draw what would be learnt.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and what the libraries have to say.")
def train(recipe: str | None, config: Path | None, resume: bool, dry_run: bool, debug: bool, **options: Any) -> int:
    """Tune the detector on DATASET: a folder of JSONL, COCO or YOLO, or one file beside its images.

    A folder has train, valid and test with `annotations.jsonl` or `_annotations.coco.json` each, or one such file,
    which is split by seed, or YOLO's `data.yaml`. The best adapter is in RUN/adapter, for `run --adapter`.

    Exit code: 0 trained, 1 RUN can't be written, 2 usage, 3 unreadable data set, 4 weights missing or wrong, 5 device,
    130 interrupted.
    """
    set_up_messages(debug=debug)
    # What wasn't given is the file's, the recipe's, the environment's or the setting's own to say.
    given = _from_source(ParameterSource.COMMANDLINE, options)
    settings = settings_from(recipe, config, given, environment=_from_source(ParameterSource.ENVIRONMENT, options))
    # These import torch, which would slow --help down.
    from grounded_seg.weights.sources import resolve

    if resolve(settings.models, boxes_only=True).is_demo:
        note(DEMO_NOTE)
    from grounded_seg.cli.counted import counted

    with ExitStack() as stack:

        def bar_of(what: str) -> Callable[[int, int], None]:
            """Show a bar from its first call on, in place of the one before."""

            @cache
            def bar() -> Callable[[int, int], None]:
                stack.close()
                return stack.enter_context(counted(what))

            return lambda n_done, n_all: bar()(n_done, n_all)

        reading = bar_of("images checked")
        if dry_run:
            from grounded_seg.train.dry_run import dry_run as look

            found = look(settings, reading)
            stack.close()
            _show_dry_run(found)
            return 0
        from grounded_seg.train.training import train as start

        table = _Table()

        def watcher(row: Mapping[str, float]) -> None:
            # A bar would cross the lines of the table.
            stack.close()
            table.add(row)

        bars = {"reading": reading, "progress": bar_of("images of the test split")}
        try:
            report = start(settings, resume=resume, watcher=watcher, **bars)
        except KeyboardInterrupt as interrupt:
            if not any((settings.output / "checkpoints").glob("checkpoint-*")):
                raise
            told = "checkpoints are kept, and the same command with --resume goes on"
            raise InterruptionError(f"interrupted; {told} ({settings.output})") from interrupt
    _show_report(report)
    return 0


def _from_source(source: ParameterSource, options: Mapping[str, Any]) -> dict[str, Any]:
    """Take the options whose values come from there."""
    context = click.get_current_context()
    return {name: value for name, value in options.items() if context.get_parameter_source(name) is source}


class _Table:
    """Prints a line of figures for each validation, under the mean loss of the steps before it."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._columns: tuple[str, ...] = ()

    def add(self, row: Mapping[str, float]) -> None:
        """Take a step's row, or print a validation's."""
        if "loss" in row:
            self._losses.append(row["loss"])
            return
        mean = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        shown = {"step": row["step"], "epoch": row["epoch"], "loss": mean}
        shown |= {name: value for name, value in row.items() if name.startswith("valid_")}
        self._losses = []
        if tuple(shown) != self._columns:
            self._columns = tuple(shown)
            # Only the loss is measured on both splits.
            titles = (name if name == "valid_loss" else name.removeprefix("valid_") for name in shown)
            click.echo("".join(title.rjust(_COLUMN) for title in titles))
        cells = [str(row["step"]), *(f"{value:.4g}" for name, value in shown.items() if name != "step")]
        click.echo("".join(cell.rjust(_COLUMN) for cell in cells))


def _show_report(report: "TrainReport") -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in report.figures.items())
    click.echo(
        f"\n{report.n_steps} steps, {report.n_trained:,} trained numbers, {report.seconds:.0f} s; best: {figures}"
    )
    for path in (report.result, report.folder.metrics, report.folder.loss_picture, report.folder.report):
        if path.exists():
            click.echo(path)


def _show_dry_run(found: "DryRun") -> None:
    # This imports numpy, which would slow --help down.
    from grounded_seg.train.data.records import fault_lines

    for line in (*found.notes, *fault_lines(found.faults)):
        click.echo(line)
    for name, split in found.splits.items():
        boxes = ", ".join(f"{label} {n}" for label, n in split.boxes.items()) or "none"
        click.echo(
            f"{name}: {split.n_images} images ({split.n_background} without objects), {split.n_texts} texts, "
            f"boxes: {boxes}"
        )
    click.echo(f"{found.n_questions} questions an epoch, {found.n_negatives} of them about what isn't there")
    for what, (shortest, median, longest) in (("question", found.question_tokens), ("answer", found.answer_tokens)):
        click.echo(f"{what} tokens: {shortest} to {longest}, half of them up to {median}")
    for question in found.examples:
        click.echo(f"\n{question.example.image.name}: {question.text}\n  {question.answer or '(nothing)'}")
    for path in found.pictures:
        click.echo(path)
