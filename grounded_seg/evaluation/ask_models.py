"""Ask the models about a data set: through the engine into a run folder, whose journal gives the predictions."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.write import annotation_from_instance, journal_line
from grounded_seg.engine.request import Processed
from grounded_seg.errors import InputError, UsageError
from grounded_seg.evaluation.requests import Questions
from grounded_seg.evaluation.source_run import calibration_of, weights_of
from grounded_seg.geometry.masks import run_length_from_coco
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.job import Job, claimed, earlier_of, is_complete
from grounded_seg.runs.journal import read_lines
from grounded_seg.runs.manifest import Counts, DataSetAsked, ImageNames, Manifest, read_manifest
from grounded_seg.runs.run import fill, finish
from grounded_seg.settings import OnError, RunSettings

_OLDER_NAME = "answers.jsonl"
"""What versions before 0.2 kept the predictions in."""


Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many images are done, and how many there are."""


@dataclass(frozen=True)
class Asked:
    """The models' predictions for a data set."""

    predictions: tuple[Prediction, ...]
    given_true_boxes: tuple[Prediction, ...] | None
    """None where masks weren't asked for, or the data set has none."""
    speed: Mapping[str, float]
    """Images per second, and seconds per image of each stage, without loading the models."""
    made_with: Mapping[str, Any]
    """Weights, settings, device and versions, in JSON."""


class EvaluationLine(JournalLine):
    """A line of an evaluation's journal: a run's line, and what only an evaluation asks."""

    image_id: int
    """In the data set."""
    asked: list[str] | None
    """The image's prompts; None where every image is asked everything."""
    given_true_boxes: list[dict[str, Any]] | None
    """What the segmenter made of the true boxes, as annotations without ids; None where it wasn't asked."""
    seconds: dict[str, float]
    """Of each stage."""


def ask_models(
    questions: Questions,
    images: Path,
    settings: RunSettings,
    progress: Progress,
    *,
    output: Path | None = None,
    n_absent: int | None = None,
) -> Asked:
    """Ask the models about every image of a data set, at a score threshold of 0.

    Args:
        questions: What each image is asked.
        images: Folder that the data set's file names start from.
        settings: Models, batches and the rest; `output` replaces theirs.
        progress: Is told how many images are done.
        output: Folder that keeps the predictions, to be resumed; None for a temporary one.
        n_absent: As for `questions_for`, to be written down.

    Raises:
        InputError: If an image is missing, can't be read, or isn't of the size that the data set says.
    """
    _check_all_there(questions.data_set, images)
    with _folder(output) as root:
        threshold_0 = replace(settings.detect, score_threshold=0.0)
        settings = replace(settings, output=root, detect=threshold_0, on_error=OnError.STOP, save=frozenset())
        job = _job_of(questions, images, settings, n_absent)
        _fill(job, progress)
        return _asked(RunFolder(root), questions, job)


class ProgressWatcher:
    """Counts the images of a run for a progress display."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._n_done = self._n_images = 0

    def started(self, n_images: int, counts: Counts) -> None:
        """Begin with what is in the journal already."""
        self._n_done, self._n_images = counts.n_images, n_images
        self._progress(self._n_done, n_images)

    def finished_image(self, line: JournalLine) -> None:  # noqa: ARG002  (only that there is one matters)
        """Count one more."""
        self._n_done += 1
        self._progress(self._n_done, self._n_images)


def _fill(job: Job, progress: Progress) -> None:
    """Bring the run folder to its end."""
    started, folder = time.perf_counter(), RunFolder(job.settings.output)
    if (folder.root / _OLDER_NAME).exists():
        raise UsageError(
            f"{folder.root} holds {_OLDER_NAME} of an older version, which can't be resumed; name another --output"
        )
    with claimed(folder, job.settings, evaluates=True) as journal:
        earlier = earlier_of(job, folder, journal)
        if earlier is not None and is_complete(earlier, job):
            return
        manifest, counts = fill(job, folder, journal, earlier, ProgressWatcher(progress))
        finish(manifest, counts, folder, started)


def _job_of(questions: Questions, images: Path, settings: RunSettings, n_absent: int | None) -> Job:
    data_set = questions.data_set
    names = [image.file_name for image in data_set.images]
    manifest = Manifest(
        prompts=questions.prompts.class_by_prompt,
        paths=(str(images),),
        images=ImageNames.of(images.absolute(), names),
        settings=settings,
        models=None,
        images_at_once=settings.batch_size,
        evaluation=DataSetAsked(str(data_set.path), questions.sha256(), n_absent),
        rules=questions.prompts.rules_as_json,
    )
    return Job(
        manifest,
        names,
        partial(questions.request, images=images, true_boxes=data_set.has_masks and not settings.boxes_only),
        partial(_line, image_ids=tuple(image.id for image in data_set.images), tells_prompts=n_absent is not None),
        skips=False,
    )


def _line(processed: Processed, *, image_ids: Sequence[int], tells_prompts: bool) -> EvaluationLine:
    request, given = processed.request, processed.given
    return {
        **journal_line(request.name, processed.result),
        "image_id": image_ids[request.index],
        "asked": list(request.prompts.prompts) if tells_prompts else None,
        "given_true_boxes": None if given is None else [{**annotation_from_instance(one)} for one in given],
        "seconds": dict(processed.seconds),
    }


def _asked(folder: RunFolder, questions: Questions, job: Job) -> Asked:
    """Read the predictions from the journal."""
    lines: list[Any] = list(read_lines(folder.journal)) if folder.journal.exists() else []
    try:
        predictions, given = _predictions(lines, questions)
        speed = _speed([line["seconds"] for line in lines])
        made_with = _made_with(read_manifest(folder.manifest))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(
            f"{folder.root} holds no predictions of an eval that can be read ({why}); name another --output"
        ) from error
    has_given = questions.data_set.has_masks and not job.settings.boxes_only
    return Asked(predictions, given if has_given else None, speed, made_with)


def _made_with(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the models are, where they run and how they are asked, as the report has it."""
    models, settings = manifest["models"], manifest["settings"]
    return {
        "weights": weights_of(models),
        **calibration_of(models),
        **{name: models[name] for name in ("device", "dtype", "threads", "versions")},
        **{name: settings[name] for name in ("detect", "segment", "tiles", "boxes_only", "batch_size")},
    }


def _predictions(
    lines: Iterable[Mapping[str, Any]], questions: Questions
) -> tuple[tuple[Prediction, ...], tuple[Prediction, ...]]:
    """Take what was found, and what was made of the true boxes, by image."""
    id_by_name = {name: class_id for class_id, name in questions.data_set.classes.items()}
    class_by_prompt = questions.prompts.class_by_prompt
    found, given = [], []
    for line in sorted(lines, key=lambda one: int(one["image_id"])):
        for one in line["instances"]:
            category_id = id_by_name[class_by_prompt[one["attributes"]["prompt"]]]
            raw = one["attributes"]["detector_score"]
            found.append(_prediction(line["image_id"], category_id, one, one["score"], raw))
        for one in line["given_true_boxes"] or ():
            # All boxes are true: what ranks these masks is the segmenter's own score.
            score = one["attributes"]["mask_score"]
            category_id = id_by_name[one["attributes"]["prompt"]]
            given.append(_prediction(line["image_id"], category_id, one, 1.0 if score is None else score))
    return tuple(found), tuple(given)


def _prediction(
    image_id: int, category_id: int, annotation: Mapping[str, Any], score: float, raw: float | None = None
) -> Prediction:
    x, y, width, height = annotation["detector_bbox"]
    mask = annotation["segmentation"]
    return Prediction(
        image_id=image_id,
        category_id=category_id,
        score=score,
        box_xywh=(x, y, width, height),
        mask=run_length_from_coco(mask) if mask else None,
        prompt=annotation["attributes"]["prompt"],
        detector_score=raw,
    )


def _speed(seconds_of_images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the stages; the true boxes are asked beside the chain, and don't slow it down."""
    seconds: Counter[str] = Counter()
    for stages in seconds_of_images:
        seconds.update(stages)
    n_images = len(seconds_of_images)
    per_image = {f"{stage}_s_per_image": total / n_images for stage, total in seconds.items()}
    chain_s = sum(total for stage, total in seconds.items() if stage != "true_boxes")
    return {"images_per_s": n_images / chain_s, **per_image} if chain_s else per_image


def _check_all_there(data_set: DataSet, folder: Path) -> None:
    """Look for every listed image, before any is asked about."""
    missing = [image.file_name for image in data_set.images if file_of(folder, image.file_name) is None]
    if missing:
        raise InputError(
            f"{data_set.path}: {len(missing)} of {len(data_set.images)} listed images are not in {folder}, such as "
            f"{missing[0]!r}; name their folder with --images, or take them out of the file"
        )


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """The folder that keeps the predictions, or a temporary one."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="grounded-seg-eval-") as temporary:
        yield Path(temporary)
