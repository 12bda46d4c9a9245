"""What the commands do, as functions: settings go in as keywords, records come out, and nothing is printed."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, Unpack

from grounded_seg.coco.check.repair import repair_file
from grounded_seg.coco.check.rules import Fault
from grounded_seg.coco.check.validate import validate_file
from grounded_seg.coco.data_set import DataSet, read_data_set
from grounded_seg.detect.prompts import Prompts, prompt_set_from
from grounded_seg.engine.keywords import EngineKeywords, RunKeywords, refuse_unknown, run_settings_from
from grounded_seg.errors import UsageError
from grounded_seg.evaluation import evaluate as evaluation
from grounded_seg.evaluation.ask_models import Progress, ProgressWatcher
from grounded_seg.export import export as labels
from grounded_seg.export.settings import ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.images.given import given_from, refuse_address
from grounded_seg.review.decisions_merge import carry_over
from grounded_seg.runs import merge, run, status
from grounded_seg.runs.manifest import Counts
from grounded_seg.runs.status import RunsStatus
from grounded_seg.scoring import fit_maps
from grounded_seg.scoring.json_report import read_report
from grounded_seg.settings import ResultsForm, Reviewed, RunSettings


class EvaluationKeywords(EngineKeywords, total=False):
    """What an evaluation takes: the models' settings, and the fields of `EvaluationSettings`."""

    images: Path | str | None
    predictions: Path | str | None
    prompts: Path | str | None
    n_absent: int | None
    n_resamples: int
    reviewed: Reviewed | str | None
    output: Path | str | None
    resume: bool


class ExportKeywords(TypedDict, total=False):
    """Fields of `ExportSettings` beside source, output and format; choices may be given as text."""

    form: MaskForm | str | None
    min_score: float
    classes: Sequence[str]
    split: Sequence[int]
    seed: int
    tolerance_px: float
    images: Path | str | None
    pictures: Pictures | str
    reviewed: Reviewed | str | None


def _silent(done: int, n_all: int) -> None:
    """Tell nobody."""


def run_images(
    prompts: Prompts,
    paths: Path | str | Iterable[Path | str],
    output: Path | str,
    *,
    progress: Progress = _silent,
    **settings: Unpack[RunKeywords],
) -> Counts:
    """Ask about all images of files, folders, patterns and lists into a folder, as `grounded-seg run` does.

    Args:
        prompts: What to look for: "red car; dog", "@classes.yaml", a list of prompts, or a mapping of prompts to
            classes.
        paths: One or more images, folders, patterns such as "photos/*.png", "@FILE" for a list of paths, or addresses
            such as "s3://BUCKET/FOLDER", as text.
        output: Folder for `annotations.json`, `results.jsonl`, `run.json` and pictures.
        progress: Told how many images are done, and how many there are.
        settings: The options of `run`, such as `preset="demo"`, `score_threshold=0.3` or `resume=True`.

    Returns:
        How many images were done and skipped, and how many instances were found.

    Raises:
        UsageError, InputError, WeightsError, DeviceError, OutputError: As the command tells them.
    """
    refuse_unknown(settings, (*RunKeywords.__annotations__, "output", "progress"))
    given = [paths] if isinstance(paths, Path | str) else list(paths)
    if isinstance(output, str):
        refuse_address(output, f"give a folder on this disk, and copy the finished run with upload={output!r}")
    asked = run_settings_from({**settings, "output": output})
    named = [given_from(one) if isinstance(one, str) else Path(one) for one in given]
    return run.run_images(prompt_set_from(prompts), named, asked, ProgressWatcher(progress))


def evaluate(
    ground_truth: Path | str, *, progress: Progress = _silent, **settings: Unpack[EvaluationKeywords]
) -> evaluation.Evaluation:
    """Measure both stages on a COCO data set, as `grounded-seg eval` does.

    Args:
        ground_truth: The COCO file.
        progress: Told how many images the models are done with, and how many there are.
        settings: `images`, the folder of the images, to ask the models; or `predictions`, a file to score. Beside them
            `prompts` (a YAML file), `n_absent`, `n_resamples` for intervals, `output`, `resume`, `boxes_only`,
            `reviewed` (accepted, not-rejected or undecided, of a run that was looked through), and the options of the
            models, such as `preset="demo"`. `score_threshold` is the minimum score for a box to count as found;
            average precision takes all boxes.

    Returns:
        The scores; `report()` gives what `--json` writes, and `suggest(path)` writes the file of `--suggest`.

    Raises:
        UsageError, InputError, WeightsError, DeviceError, OutputError: As the command tells them.
    """
    refuse_unknown(settings, (*EvaluationKeywords.__annotations__, "progress"))
    values: dict[str, Any] = {**settings}
    predictions, resume = values.pop("predictions", None), values.get("resume", False)
    if predictions is not None and (values.get("output") is not None or resume):
        raise UsageError("output and resume keep the models' predictions; leave them out with predictions")
    if predictions is not None and values.get("calibration") is not None:
        raise UsageError("calibration is for asking the models; give it to the run whose predictions are scored")
    of_models = {name: values[name] for name in (*EngineKeywords.__annotations__, "resume") if name in values}
    asked = run_settings_from(of_models)
    own = {one.name: values[one.name] for one in fields(evaluation.EvaluationSettings) if one.name in values}
    own["score_threshold"] = asked.detect.score_threshold
    source = asked if predictions is None else Path(predictions)
    return evaluation.evaluate(
        evaluation.EvaluationSettings(ground_truth=Path(ground_truth), source=source, **own), progress
    )


def calibrate(report: Path | str, output: Path | str) -> fit_maps.CalibrationReport:
    """Learn from a report of `evaluate` with which probability a box of a score is right, as the command does.

    Args:
        report: A file of `eval --json`, or of `Evaluation.report()` as JSON.
        output: The file to write, for `calibration` of `run_images`, `evaluate` and `GroundedSegmenter.from_preset`.

    Returns:
        How scores and probabilities do, class by class, on images that the maps weren't fitted to.

    Raises:
        UsageError: If the report's scores are probabilities already.
        InputError: If it can't be read, or has no predictions.
        OutputError: If the file can't be written.
    """
    return fit_maps.calibrate(read_report(Path(report)), Path(output))


def export_labels(
    source: Path | str,
    output: Path | str,
    format: LabelFormat | str,  # noqa: A002  (the setting's name)
    *,
    progress: Progress = _silent,
    **settings: Unpack[ExportKeywords],
) -> labels.ExportReport:
    """Write the labels of a run or of any COCO file in another tool's format, as `grounded-seg export` does.

    Args:
        source: A run's folder, or a COCO file.
        output: A folder that is empty or not there yet.
        format: coco, yolo, voc, labelme, labelstudio, cvat, fiftyone or masks.
        progress: Told how many images are written, and how many there are.
        settings: `form` of the masks (rle, polygon, both or none), `min_score`, `classes`, `split` such as
            (80, 10, 10), `seed`, `tolerance_px` of polygons, `images` (their folder), `pictures`: none, copy or link,
            and `reviewed`: accepted, not-rejected or undecided, of a run that was looked through.

    Returns:
        How many images and labels were written, and what the format couldn't hold.

    Raises:
        UsageError, InputError, OutputError: As the command tells them.
    """
    refuse_unknown(settings, (*ExportKeywords.__annotations__, "progress"))
    values: dict[str, Any] = {**settings, "source": source, "output": output, "format": format}
    return labels.export_labels(ExportSettings(**values), progress)


def read_coco(path: Path | str) -> DataSet:
    """Read a COCO data set as `eval` does: images, classes and objects; its `notes` say what was unusual.

    Raises:
        InputError: If it can't be read, or can be read in two ways; names the place.
    """
    return read_data_set(Path(path))


def validate_coco(path: Path | str, images: Path | str | None = None) -> list[Fault]:
    """Give the faults of a COCO file, as `grounded-seg validate` lists them.

    Args:
        path: The file.
        images: Folder of its images, to check them too.

    Raises:
        InputError: If the file can't be read at all.
    """
    return validate_file(Path(path), None if images is None else Path(images))


def repair_coco(path: Path | str, destination: Path | str, images: Path | str | None = None) -> list[str]:
    """Write a repaired copy of a COCO file, as `grounded-seg validate --fix` does, and list the repairs.

    Raises:
        UsageError: If the copy would replace the file.
        InputError: If the file can't be repaired.
        OutputError: If the copy can't be written.
    """
    return repair_file(Path(path), Path(destination), None if images is None else Path(images))


def merge_runs(
    runs: Path | str | Iterable[Path | str],
    output: Path | str,
    *,
    results: ResultsForm | str = ResultsForm.COCO,
    progress: Progress = _silent,
) -> Counts:
    """Merge runs over different images with the same classes into one, as `grounded-seg merge-runs` does.

    Args:
        runs: The folders of the runs, two or more, or of all shards of a list; patterns such as "out/shard-*" too.
        output: A folder that holds no run yet.
        results: "parquet" for tables beside the COCO file.
        progress: Told how many images are merged, and how many there are.

    Raises:
        UsageError, InputError, OutputError: As the command tells them.
    """
    form = RunSettings(results=results).results  # type: ignore[arg-type]  # it converts text
    paths, folder = _paths(runs), Path(output)
    return merge.merge_runs(paths, folder, progress, results=form, finish=lambda: carry_over(paths, folder))


def run_status(runs: Path | str | Iterable[Path | str]) -> RunsStatus:
    """Tell how far runs are, while they run or after, as `grounded-seg status` does.

    Args:
        runs: The folders of one or more runs, such as all shards of a list; patterns such as "out/shard-*" too.

    Raises:
        InputError: If a folder is no run's, or can't be read.
    """
    return status.status_of(_paths(runs))


def _paths(given: Path | str | Iterable[Path | str]) -> list[Path]:
    return [Path(given)] if isinstance(given, Path | str) else [Path(one) for one in given]
