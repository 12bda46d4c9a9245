"""What a run is about, its folder claimed, and what an earlier one left to do: shared by `run` and `eval`."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from grounded_seg.coco.schema import JournalLine
from grounded_seg.engine.batches import batch_ranges
from grounded_seg.engine.request import Processed, Request
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import is_locked
from grounded_seg.images.find import find_images
from grounded_seg.images.formats import only_own_limit
from grounded_seg.images.found import FoundImages
from grounded_seg.images.given import Given
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import LOCK_NAME, Journal, in_use
from grounded_seg.runs.manifest import Manifest, is_without_images, read_manifest, refuse_evaluation, refuse_run
from grounded_seg.runs.resume import Earlier, earlier_run
from grounded_seg.settings import RunSettings


@dataclass(frozen=True)
class Job:
    """What a run is about."""

    manifest: Manifest
    names: Sequence[str]
    """The images, in the order of the journal's lines."""
    request: Callable[[int], Request]
    """Gives the request of an image by its index."""
    per_image: Callable[[Processed], JournalLine]
    """Makes an image's line, and its files; see `engine.request.PerImage`."""
    skips: bool = True
    """An image that can't be read is skipped."""
    group_starts: Sequence[int] = (0,)
    """Index of the first image of each group; a batch never has images of two."""
    writes_files: bool = False
    """The per-image function writes files into the output folder."""

    @property
    def settings(self) -> RunSettings:
        """How it is asked, and where it is written."""
        return self.manifest.settings


@contextmanager
def claimed(folder: RunFolder, settings: RunSettings, *, evaluates: bool = False) -> Iterator[Journal]:
    """Check that the folder may be written, by a `run` or by an `eval`, and lock its journal for the block."""
    is_empty = False
    with suppress(InputError):
        # What it holds is told first; a manifest that is missing or damaged is another matter.
        manifest = read_manifest(folder.manifest)
        (refuse_run if evaluates else refuse_evaluation)(manifest, folder.root)
        is_empty = is_without_images(manifest)
    try:
        folder.check_free(
            overwrite=settings.overwrite, resume=settings.resume, can_overwrite=not evaluates, is_empty=is_empty
        )
    except UsageError:
        if is_locked(folder.root / LOCK_NAME):
            # Neither --resume nor --overwrite, which that message may name, would do.
            raise UsageError(in_use(folder.journal)) from None
        raise
    with Journal(folder.journal) as journal, only_own_limit():
        yield journal


def earlier_of(job: Job, folder: RunFolder, journal: Journal) -> Earlier | None:
    """Find the run that is to be resumed; None to start afresh, as where it was killed before its first line."""
    if not job.settings.resume or not (journal.has_lines or (not job.names and folder.manifest.exists())):
        return None
    return earlier_run(read_manifest(folder.manifest), job.manifest, job.names, journal)


def is_complete(earlier: Earlier, job: Job) -> bool:
    """Tell whether a run is finished and was made with the weights that are named now."""
    return earlier.is_finished(len(job.names)) and earlier.same_models_named(job.manifest)


def find_inputs(paths: Sequence[Given], settings: RunSettings, folder: RunFolder) -> FoundImages:
    """List the images, without the pictures that an earlier run wrote into the output folder."""
    found = find_images(paths, settings.recursive)
    if not isinstance(found.root, Path):
        return found
    file_names = folder.without_own(found.file_names, found.root)
    if not file_names:
        raise UsageError(f"all images there are results of an earlier run in {folder.root}; name other images")
    return found.only(file_names)


def requests_of(job: Job, earlier: Earlier | None) -> Iterator[Request]:
    """Give the images of all batches in which one is left to do.

    A batch that was cut off is asked about as a whole: the last bits of its numbers depend on who is in it.
    """
    n_lines, again = (0, frozenset[int]()) if earlier is None else (earlier.n_lines, earlier.again)
    for batch in batch_ranges(len(job.names), job.settings.batch_size, job.group_starts):
        known = [index < n_lines and index not in again for index in batch]
        if not all(known):
            group = job.group_starts[bisect_right(job.group_starts, batch.start) - 1]
            for index, one in zip(batch, known, strict=True):
                yield replace(job.request(index), group=group, is_known=one)


def start_afresh(folder: RunFolder, journal: Journal) -> None:
    """Make the folder and lock its journal, then take out what an earlier run left."""
    folder.make()
    journal.make()
    folder.clear_records(journal.empty)
    folder.clear_pictures()
