"""Many images: read, ask, write pictures and a journal line for each, and the COCO file at the end."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from grounded_seg.coco.export import journal_line, write_annotations
from grounded_seg.coco.schema import JournalLine
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import UsageError
from grounded_seg.images import FoundImages, find_images, read_image
from grounded_seg.journal import Journal, read_lines
from grounded_seg.manifest import Counts, Manifest
from grounded_seg.pictures import write_pictures
from grounded_seg.pipeline import GroundedSegmenter, PromptedResult, batches, read_or_skip
from grounded_seg.records import Image, ImageSkipped, RunReport
from grounded_seg.run_folder import RunFolder, as_output_error
from grounded_seg.settings import OnError, RunSettings

if TYPE_CHECKING:
    from grounded_seg.weights.fetch import Progress

Outcome: TypeAlias = PromptedResult | ImageSkipped


class Watcher(Protocol):
    """Is told how a run goes, as it goes."""

    def started(self, n_images: int) -> None:
        """The models are loaded, the first image is next."""

    def finished_image(self, file_name: str, outcome: Outcome, line: JournalLine) -> None:
        """An image is done or skipped, and `line` stands in the journal."""


@dataclass(frozen=True)
class _Batch:
    """The images of one position in the list, as far as they could be read."""

    file_names: tuple[str, ...]
    images: list[Image | ImageSkipped]


@dataclass
class _Tally:
    """Counts and seconds that grow while a run goes on."""

    n_done: int = 0
    n_instances: int = 0
    n_empty_masks: int = 0
    n_unusable_boxes: int = 0
    skipped: list[ImageSkipped] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        if isinstance(outcome, ImageSkipped):
            self.skipped.append(outcome)
            return
        self.n_done += 1
        self.n_instances += len(outcome.instances)
        self.n_empty_masks += outcome.n_empty_masks
        self.n_unusable_boxes += outcome.n_unusable_boxes
        for stage, seconds in outcome.seconds.items():
            self._add_seconds(stage, seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._add_seconds(stage, time.perf_counter() - started)

    def _add_seconds(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def run_images(
    prompts: PromptSet,
    paths: Sequence[Path],
    settings: RunSettings,
    watcher: Watcher,
    *,
    progress: "Progress | None" = None,
) -> RunReport:
    """Ask about all images of files and folders, and write what was found into `settings.output`.

    Which images go through the models together is fixed by position in the sorted list, so the same list and settings
    give the same bytes of `annotations.json` and `results.jsonl`. An image that can't be read is skipped, unless it is
    the only one asked about. Nothing is written before the first batch has been read and the models are loaded.

    Args:
        prompts: What is asked about each image.
        paths: Image files and folders.
        settings: How it is asked, and what is written.
        watcher: Told about each image.
        progress: Called while a weight file is fetched.

    Raises:
        UsageError: If the output folder is in use.
        InputError: If there are no images, or one can't be read that isn't to be skipped.
        WeightsError, DeviceError: As for `GroundedSegmenter.from_preset`.
        OutputError: If the results can't be written.
    """
    started = time.perf_counter()
    folder = RunFolder(settings.output)
    folder.check_free(overwrite=settings.overwrite)
    found = _find_inputs(paths, settings, folder)
    tally = _Tally()
    is_alone = len(paths) == 1 and not os.path.isdir(paths[0])
    read_batches = _read_batches(found, settings, tally, skip=settings.on_error is OnError.SKIP and not is_alone)
    # The first batch is read before the models are loaded: a single bad image is told at once.
    first = next(read_batches)
    with tally.timed("load"):
        segmenter = GroundedSegmenter.from_settings(
            settings.models,
            settings.detect,
            segment=settings.segment,
            tiles=settings.tiles,
            boxes_only=settings.boxes_only,
            progress=progress,
        )
    folder.clear()
    watcher.started(len(found.file_names))
    with Journal(folder.journal) as journal:
        for batch in chain([first], read_batches):
            for file_name, outcome, line in _process(batch, prompts, segmenter, folder, settings, tally):
                journal.append(line)
                watcher.finished_image(file_name, outcome, line)
    with tally.timed("write"), as_output_error():
        write_annotations(read_lines(folder.journal), prompts.classes, folder.annotations, prompts.class_by_prompt)
    tally.seconds["total"] = time.perf_counter() - started
    report = RunReport(
        n_done=tally.n_done,
        n_skipped=len(tally.skipped),
        n_instances=tally.n_instances,
        seconds=tally.seconds["total"],
        skipped=tuple(tally.skipped),
    )
    _manifest(prompts, paths, settings, segmenter, tally, report).write(folder.manifest)
    return report


def _find_inputs(paths: Sequence[Path], settings: RunSettings, folder: RunFolder) -> FoundImages:
    """List the images, without the pictures that an earlier run wrote into the output folder."""
    found = find_images(paths, settings.recursive)
    file_names = folder.without_own(found.file_names, found.root)
    if not file_names:
        raise UsageError(f"all images there are results of an earlier run in {folder.root}; name other images")
    return replace(found, file_names=file_names)


def _read_batches(found: FoundImages, settings: RunSettings, tally: _Tally, *, skip: bool) -> Iterator[_Batch]:
    """Read the images batch by batch; with `skip` off, the first that can't be read is raised."""
    read = read_or_skip if skip else read_image
    for file_names in batches(found.file_names, settings.batch_size):
        with tally.timed("read"):
            images = [read(found.path(file_name)) for file_name in file_names]
        yield _Batch(file_names, images)


def _process(
    batch: _Batch,
    prompts: PromptSet,
    segmenter: GroundedSegmenter,
    folder: RunFolder,
    settings: RunSettings,
    tally: _Tally,
) -> Iterator[tuple[str, Outcome, JournalLine]]:
    """Ask about one batch; for each image write its pictures and give its journal line."""
    outcomes = segmenter.segment_readable(batch.images, prompts)
    for file_name, image, outcome in zip(batch.file_names, batch.images, outcomes, strict=True):
        with tally.timed("write"):
            if isinstance(image, Image) and isinstance(outcome, PromptedResult):
                write_pictures(folder, file_name, image, outcome, settings.save)
            line = journal_line(file_name, outcome)
        tally.add(outcome)
        yield file_name, outcome, line


def _manifest(
    prompts: PromptSet,
    paths: Sequence[Path],
    settings: RunSettings,
    segmenter: GroundedSegmenter,
    tally: _Tally,
    report: RunReport,
) -> Manifest:
    return Manifest(
        prompts=prompts.class_by_prompt,
        paths=tuple(paths),
        settings=settings,
        models=segmenter.loaded,
        counts=Counts(
            images=report.n_done + report.n_skipped,
            done=report.n_done,
            skipped=report.n_skipped,
            instances=report.n_instances,
            empty_masks=tally.n_empty_masks,
            unusable_boxes=tally.n_unusable_boxes,
        ),
        seconds={stage: round(seconds, 3) for stage, seconds in tally.seconds.items()},
        exit_code=report.exit_code,
    )
