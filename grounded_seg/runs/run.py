"""Many images: read ahead, ask, write pictures and a journal line for each behind, and the COCO file at the end.

The models work on one batch after the other, on the thread that called. Other threads decode the images of the next
batches and write what came of the last ones, so that the models seldom wait.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.write import journal_line, write_annotations
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.batches import BatchAsker
from grounded_seg.engine.read_ahead import batches, read_ahead
from grounded_seg.engine.write_behind import OrderedWriter
from grounded_seg.errors import UsageError
from grounded_seg.files import as_output_error
from grounded_seg.images.find import FoundImages, Given, find_images
from grounded_seg.images.read import only_own_limit, read_image, read_or_skip
from grounded_seg.pipeline.chain import GroundedSegmenter
from grounded_seg.pipeline.load import FoundModels, find_models
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image, ImageSkipped, RunReport
from grounded_seg.runs.counts import Tally
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import Journal, read_lines
from grounded_seg.runs.manifest import ImageNames, Manifest, read_manifest
from grounded_seg.runs.pictures import write_pictures
from grounded_seg.runs.resume import check_same, tally_of, tell_if_moved
from grounded_seg.settings import OnError, RunSettings

if TYPE_CHECKING:
    from grounded_seg.weights.fetch import Progress

Outcome: TypeAlias = PromptedResult | ImageSkipped

_N_THREADS = min(8, os.cpu_count() or 1)
"""That read, and again as many that write. More wouldn't decode any faster, and hold more images."""


class Watcher(Protocol):
    """Is told how a run goes, as it goes; of images on another thread than the caller's."""

    def started(self, n_images: int, n_done: int, n_found: int, n_skipped: int) -> None:
        """The models are loaded, the first image is next; the journal holds so many of an earlier run.

        Args:
            n_images: In all.
            n_done: Those that stand in the journal, skipped ones too.
            n_found: Instances on them.
            n_skipped: Those of them that were skipped.
        """

    def finished_image(self, file_name: str, outcome: Outcome, line: JournalLine) -> None:
        """An image is done or skipped, and `line` stands in the journal."""


@dataclass(frozen=True)
class _Read:
    """An image as far as it could be read."""

    file_name: str
    image: Image | ImageSkipped
    seconds: float


@dataclass(frozen=True)
class _Finished:
    """An image whose pictures are written, ready for the journal."""

    file_name: str
    outcome: Outcome
    line: JournalLine
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Run:
    """What the steps of a run share."""

    prompts: PromptSet
    settings: RunSettings
    found: FoundImages
    folder: RunFolder
    journal: Journal
    tally: Tally
    watcher: Watcher


def run_images(
    prompts: PromptSet,
    paths: Sequence[Given],
    settings: RunSettings,
    watcher: Watcher,
    *,
    progress: "Progress | None" = None,
) -> RunReport:
    """Ask about all images of files, folders and lists, and write what was found into `settings.output`.

    Which images go through the models together is fixed by position in the sorted list, and every batch has the same
    shape. So the same list and settings give the same bytes of `annotations.json` and `results.jsonl`, whether the run
    was cut off and resumed or not. An image that can't be read is skipped, unless it is the only one asked about.
    Nothing is written before the first batch has been read and the models are loaded. Whatever ends the run, the lines
    in the journal are whole by then, and it can be resumed.

    Args:
        prompts: What is asked about each image.
        paths: Image files, folders, and lists of these.
        settings: How it is asked, and what is written.
        watcher: Told about each image.
        progress: Called while a weight file is fetched.

    Raises:
        UsageError: If the output folder is in use, or what is to be resumed is another run.
        InputError: If there are no images, or one can't be read that isn't to be skipped.
        WeightsError, DeviceError: As for `GroundedSegmenter.from_preset`.
        OutputError: If the results can't be written.
    """
    started = time.perf_counter()
    folder = RunFolder(settings.output)
    folder.check_free(overwrite=settings.overwrite, resume=settings.resume)
    with Journal(folder.journal) as journal, only_own_limit():
        found = _find_inputs(paths, settings, folder)
        # Absolute, so that runs that were started in different folders can be merged.
        names = ImageNames(found.root.absolute(), len(found.file_names), found.sha256)
        manifest = Manifest(
            prompts.class_by_prompt, tuple(map(str, paths)), names, settings, None, images_at_once=settings.batch_size
        )
        # A run that was killed before its first line has left nothing to go on with.
        earlier = read_manifest(folder.manifest) if settings.resume and journal.has_lines else None
        tally = Tally() if earlier is None else _taken_up(earlier, manifest, found, journal)
        n_before = tally.n_images
        run = _Run(prompts, settings, found, folder, journal, tally, watcher)
        manifest = _ask_about_the_rest(run, manifest, earlier, paths, progress)
        journal.sync()
        with tally.timed("write"), as_output_error(folder.annotations):
            write_annotations(read_lines(folder.journal), prompts.classes, folder.annotations, prompts.class_by_prompt)
        tally.add_seconds({"total": time.perf_counter() - started})
        report = tally.report()
        seconds = {stage: round(seconds, 3) for stage, seconds in tally.seconds.items()}
        manifest = replace(manifest, counts=tally.counts(), seconds=seconds, exit_code=report.exit_code)
        # That of a run that was finished before tells how long it took.
        if earlier is None or earlier["exit_code"] is None or tally.n_images > n_before:
            manifest.write(folder.manifest)
    return report


def _find_inputs(paths: Sequence[Given], settings: RunSettings, folder: RunFolder) -> FoundImages:
    """List the images, without the pictures that an earlier run wrote into the output folder."""
    found = find_images(paths, settings.recursive)
    file_names = folder.without_own(found.file_names, found.root)
    if not file_names:
        raise UsageError(f"all images there are results of an earlier run in {folder.root}; name other images")
    return replace(found, file_names=file_names)


def _taken_up(earlier: Mapping[str, Any], manifest: Manifest, found: FoundImages, journal: Journal) -> Tally:
    """Check that an earlier run was the same, as far as that is known without the models, and count its lines."""
    check_same(earlier, manifest, manifest.settings.output)
    tell_if_moved(earlier, manifest)
    return tally_of(journal, found)


def _ask_about_the_rest(
    run: _Run,
    manifest: Manifest,
    earlier: Mapping[str, Any] | None,
    paths: Sequence[Given],
    progress: "Progress | None",
) -> Manifest:
    """Bring the journal to its end; gives the manifest as it has become."""
    settings, n_kept, n_images = run.settings, run.tally.n_images, len(run.found.file_names)
    is_alone = len(paths) == 1 and isinstance(paths[0], Path) and not os.path.isdir(paths[0])
    read = partial(_read, run, skip=settings.on_error is OnError.SKIP and not is_alone)
    # A batch that was cut off is asked about as a whole: the last bits of its numbers depend on who is in it.
    start = n_images if n_kept == n_images else n_kept - n_kept % settings.batch_size
    names = islice(run.found.file_names, start, None)
    with read_ahead(names, read, n_threads=_N_THREADS, n_ahead=settings.batch_size + _N_THREADS) as images:
        read_batches = batches(images, settings.batch_size)
        # The first batch is read before the models are loaded: a single bad image is told at once.
        first = next(read_batches, None)
        with run.tally.timed("load"):
            models = find_models(settings.models, boxes_only=settings.boxes_only, progress=progress)
            manifest = replace(manifest, models=models)
            if earlier is not None:
                check_same(earlier, manifest, run.folder.root)
                manifest = replace(manifest, images_at_once=earlier["images_at_once"])
            segmenter = None if first is None else _loaded(settings, models)
        if earlier is None:
            _start_afresh(run)
        run.watcher.started(n_images, n_kept, run.tally.n_instances, run.tally.n_skipped)
        if segmenter is None or first is None:
            return manifest
        manifest.write(run.folder.manifest)
        asker = BatchAsker(segmenter, run.prompts, manifest.images_at_once)
        read_batches = chain([first], read_batches)
        # Held here, these images would stay in memory to the end.
        del first
        return _process(read_batches, n_kept - start, asker, run, manifest)


def _start_afresh(run: _Run) -> None:
    """Make the folder and lock its journal, then take out what an earlier run left."""
    run.folder.make()
    run.journal.make()
    run.folder.clear_records(run.journal.empty)
    run.folder.clear_pictures()


def _loaded(settings: RunSettings, models: FoundModels) -> GroundedSegmenter:
    return GroundedSegmenter.from_settings(
        settings.models,
        settings.detect,
        segment=settings.segment,
        tiles=settings.tiles,
        boxes_only=settings.boxes_only,
        found=models,
    )


def _process(
    read_batches: Iterable[Sequence[_Read]], n_kept: int, asker: BatchAsker, run: _Run, manifest: Manifest
) -> Manifest:
    """Ask about batches and have the outcomes written, all but the first `n_kept`, which are in the journal already."""
    n_waiting = run.settings.batch_size + _N_THREADS
    with OrderedWriter(partial(_record, run), n_threads=_N_THREADS, n_waiting=n_waiting) as writer:

        def remember_halving() -> None:
            # A run that is resumed goes on in the same halves, but not with what was done before.
            writer.wait()
            replace(manifest, images_at_once=asker.n_at_once).write(run.folder.manifest)

        for batch in read_batches:
            outcomes = asker.ask([one.image for one in batch], remember_halving)
            for one, outcome in islice(zip(batch, outcomes, strict=True), n_kept, None):
                writer.submit(partial(_write, run, one, outcome))
            n_kept = 0
    return replace(manifest, images_at_once=asker.n_at_once)


def _read(run: _Run, file_name: str, *, skip: bool) -> _Read:
    """Read an image; with `skip` off, one that can't be read is raised."""
    started = time.perf_counter()
    read = read_or_skip if skip else read_image
    image = read(run.found.path(file_name), run.settings.max_pixels)
    return _Read(file_name, image, time.perf_counter() - started)


def _write(run: _Run, read: _Read, outcome: Outcome) -> _Finished:
    """Write an image's pictures, and its journal line so far as that goes without the journal."""
    started = time.perf_counter()
    if isinstance(read.image, Image) and isinstance(outcome, PromptedResult):
        write_pictures(run.folder, read.file_name, read.image, outcome, run.settings.save)
    line = journal_line(read.file_name, outcome)
    return _Finished(read.file_name, outcome, line, {"read": read.seconds, "write": time.perf_counter() - started})


def _record(run: _Run, finished: _Finished) -> None:
    """Put an image's line into the journal; only from then on it is done."""
    run.journal.append(finished.line)
    run.tally.add_line(finished.line)
    run.tally.add_outcome(finished.outcome)
    run.tally.add_seconds(finished.seconds)
    run.watcher.finished_image(finished.file_name, finished.outcome, finished.line)
