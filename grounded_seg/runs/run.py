"""A run: many images through the engine into one folder, and the COCO file at the end.

`run_images` is what the command `run` does. `fill` is its middle part, which `eval` shares: the steps from the first
image read to the last line in the journal.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grounded_seg.coco.parquet import check_can_write_tables, write_results
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.write import journal_line
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.executors import open_engine
from grounded_seg.engine.request import Outcome, Processed, Request, Work
from grounded_seg.images.given import Given
from grounded_seg.pipeline.class_rules import check_thresholds
from grounded_seg.pipeline.load import find_models, load_chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.job import Job, claimed, earlier_of, find_inputs, is_complete, requests_of, start_afresh
from grounded_seg.runs.journal import Journal, read_lines
from grounded_seg.runs.manifest import (
    Counts,
    ImageNames,
    Manifest,
    Started,
)
from grounded_seg.runs.pictures import write_pictures
from grounded_seg.runs.resume import Earlier, check_same
from grounded_seg.runs.shards import cut
from grounded_seg.runs.upload import upload_address, upload_results
from grounded_seg.scoring.score_maps import read_calibration
from grounded_seg.settings import Drawn, OnError, ResultsForm, RunSettings, Shard

if TYPE_CHECKING:
    from grounded_seg.weights.transfer import Progress


_LOG = logging.getLogger(__name__)


class Watcher(Protocol):
    """Is told how a run proceeds."""

    def started(self, n_images: int, counts: Counts) -> None:
        """The models are loaded, and the first of `n_images` is next; `counts` is of those in the journal already."""

    def finished_image(self, line: JournalLine) -> None:
        """An image is done or skipped, and its line stands in the journal."""


def run_images(
    prompts: PromptSet,
    paths: Sequence[Given],
    settings: RunSettings,
    watcher: Watcher,
    *,
    progress: "Progress | None" = None,
) -> Counts:
    """Ask about all images of files, folders and lists, and write what was found into `settings.output`.

    Which images go through the models together is fixed by position in the sorted list, and every batch has the same
    shape. So the same list and settings give the same bytes of `annotations.json` and `results.jsonl`, whether the run
    was interrupted and resumed or not. An image that can't be read is skipped, unless it is the only one asked about.
    Nothing is written before the first batch has been read and the models are loaded. Whatever ends the run, the lines
    in the journal are whole by then, and it can be resumed. A finished run that is resumed is left as it is.

    Args:
        prompts: What is asked about each image.
        paths: Image files, folders, tars, lists of these, and addresses.
        settings: How it is asked, and what is written.
        watcher: Is told about each image.
        progress: Is called while a weight file is fetched.

    Raises:
        UsageError: If the output folder is in use, or what is to be resumed is another run.
        InputError: If there are no images, or one can't be read that isn't to be skipped.
        WeightsError, DeviceError: As for `GroundedSegmenter.from_preset`.
        OutputError: If the results can't be written.
        UploadError: If the finished run can't be copied to `settings.upload`.
    """
    started = time.perf_counter()
    if prompts.calibration is not None:
        # Told before anything is loaded.
        calibration = settings.models.calibration
        check_thresholds(prompts, None if calibration is None else read_calibration(calibration))
    folder = RunFolder(settings.output)
    upload_to = None if settings.upload is None else upload_address(settings.upload)
    with claimed(folder, settings) as journal:
        job = _job_of(prompts, paths, folder, settings)
        earlier = earlier_of(job, folder, journal)
        counts = _finished(job, prompts, folder, journal, earlier, watcher, progress, started)
        if upload_to is not None:
            upload_results(folder, upload_to)
    return counts


def _finished(
    job: Job,
    prompts: PromptSet,
    folder: RunFolder,
    journal: Journal,
    earlier: Earlier | None,
    watcher: Watcher,
    progress: "Progress | None",
    started: float,
) -> Counts:
    """Do what is left of a run, and write its results."""
    # Tables that were left as they are would soon be those of other results.
    has_tables = job.settings.results is ResultsForm.PARQUET or (earlier is not None and folder.has_tables())
    was_complete = earlier is not None and is_complete(earlier, job)
    if earlier is not None and was_complete and folder.has_results(job.settings.results):
        _LOG.info("the run in %s is finished already; nothing is left to do", folder.root)
        earlier.counts.add_seconds({"total": time.perf_counter() - started})
        return earlier.counts
    if has_tables:
        check_can_write_tables()
    manifest, counts = fill(job, folder, journal, earlier, watcher, progress=progress)
    with counts.timed("write"):
        tables = folder.tables if has_tables else None
        lines = read_lines(folder.journal)
        write_results(lines, prompts.classes, prompts.class_by_prompt, folder.annotations, tables)
    if was_complete:
        # Only its results are written again, which `run.json` says nothing about.
        counts.add_seconds({"total": time.perf_counter() - started})
    else:
        finish(manifest, counts, folder, started)
    return counts


def fill(
    job: Job,
    folder: RunFolder,
    journal: Journal,
    earlier: Earlier | None,
    watcher: Watcher,
    *,
    progress: "Progress | None" = None,
) -> tuple[Manifest, Counts]:
    """Bring the journal to its end; gives the manifest as it has become, and what the run came to."""
    settings, manifest = job.settings, job.manifest
    counts = Counts() if earlier is None else earlier.counts
    if earlier is not None:
        manifest = replace(
            manifest, models=earlier.manifest["models"], images_at_once=earlier.manifest["images_at_once"]
        )
    output = folder.root if job.writes_files else None
    work = Work(job.per_image, settings.batch_size, manifest.images_at_once, settings.max_pixels, job.skips, output)
    requests, workers = requests_of(job, earlier), settings.workers
    with counts.timed("load"):
        opened = open_engine(requests, work, settings.engine, devices=settings.devices, n_workers=workers)
    with opened as engine:
        # The first batch is read before the models are loaded: a single bad image is told at once.
        has_any = engine.read_first()
        if has_any or earlier is None or not earlier.same_models_named(manifest):
            with counts.timed("load"):
                runs_on = engine.runs_on(settings.models)
                models = find_models(
                    settings.models,
                    boxes_only=settings.boxes_only,
                    progress=progress,
                    runs_on=runs_on,
                    compiled=settings.detect.compile or settings.segment.compile,
                )
                manifest = replace(manifest, models=models)
                if earlier is not None:
                    check_same(earlier.manifest, manifest, folder.root)
                if has_any:
                    load = partial(
                        load_chain,
                        detect=settings.detect,
                        segment=settings.segment,
                        tiles=settings.tiles,
                        allow_base_mismatch=settings.models.allow_base_mismatch,
                    )
                    engine.load(models, load)
        if earlier is None:
            start_afresh(folder, journal)
        elif earlier.again:
            journal.replace_lines(earlier.n_lines)
        watcher.started(len(job.names), counts)
        manifest = replace(manifest, started=Started.now(0 if earlier is None else earlier.n_lines))
        if has_any or not job.names:
            manifest.write(folder.manifest)
        if has_any:
            for outcome in engine.outcomes():
                manifest = _record(outcome, manifest, folder, journal, counts)
                watcher.finished_image(outcome.made)
    journal.sync()
    return manifest, counts


def finish(manifest: Manifest, counts: Counts, folder: RunFolder, started: float) -> None:
    """Write down what the run came to, and when it was started by `time.perf_counter`."""
    counts.add_seconds({"total": time.perf_counter() - started})
    seconds = {stage: round(one, 3) for stage, one in counts.seconds.items()}
    replace(manifest, counts=counts.as_json(), seconds=seconds, exit_code=counts.exit_code).write(folder.manifest)


def _job_of(prompts: PromptSet, paths: Sequence[Given], folder: RunFolder, settings: RunSettings) -> Job:
    found, shard = find_inputs(paths, settings, folder), None
    if settings.shard is not None and (part := Shard.of(settings.shard)) is not None:
        found, shard = cut(found, settings.batch_size, part)
    # Absolute, so that runs that were started in different folders can be merged.
    names = ImageNames.of(found.absolute_root, found.file_names)
    manifest = Manifest(
        prompts.class_by_prompt,
        tuple(map(str, paths)),
        names,
        settings,
        None,
        images_at_once=settings.batch_size,
        shard=shard,
        rules=prompts.rules_as_json,
    )
    is_alone = len(paths) == 1 == len(found.file_names) and paths[0] == found.location(0)
    return Job(
        manifest,
        found.file_names,
        lambda index: Request(index, found.file_names[index], found.location(index), prompts),
        partial(_line_and_pictures, save=settings.save),
        skips=settings.on_error is OnError.SKIP and not is_alone,
        group_starts=found.group_starts,
        writes_files=bool(settings.save),
    )


def _record(
    outcome: Outcome[JournalLine], manifest: Manifest, folder: RunFolder, journal: Journal, counts: Counts
) -> Manifest:
    """Put an image's line into the journal; only from then on it is done."""
    if outcome.n_at_once < manifest.images_at_once:
        # A resumed run sends as many images at once, but doesn't repeat what was done before. Of several workers, the
        # one with the least memory counts.
        manifest = replace(manifest, images_at_once=outcome.n_at_once)
        manifest.write(folder.manifest)
    journal.put(outcome.request.index, outcome.made)
    counts.add_line(outcome.made)
    counts.n_empty_masks += outcome.n_empty_masks
    counts.n_unusable_boxes += outcome.n_unusable_boxes
    counts.add_seconds(outcome.seconds)
    return manifest


def _line_and_pictures(processed: Processed, *, save: frozenset[Drawn], output: Path | None = None) -> JournalLine:
    """Write an image's pictures into `output`, and make its line."""
    if output is not None and processed.image is not None and isinstance(processed.result, PromptedResult):
        write_pictures(RunFolder(output), processed.request.name, processed.image, processed.result, save)
    return journal_line(processed.request.name, processed.result)
