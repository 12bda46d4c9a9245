"""The mark beside the results of a merge that isn't finished: what a killed one left is known by it, and replaced."""

from collections.abc import Iterator
from contextlib import contextmanager

from grounded_seg.files import as_output_error
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import Journal

_NAME = ".merging"


def check_free_for_merge(folder: RunFolder) -> None:
    """Refuse a folder that holds a run, but not one that holds what a killed merge left.

    Raises:
        UsageError: If a run is there, finished or not, or decisions about one.
    """
    mark = folder.root / _NAME
    with as_output_error(folder.root):
        # Decisions come last, so that a merge which was killed behind them is finished.
        if mark.exists() and folder.review.exists() and folder.manifest.exists():
            mark.unlink()
        is_left = mark.exists()
    if is_left:
        folder.check_free(overwrite=True)
    else:
        folder.check_new()


@contextmanager
def whole_or_nothing(folder: RunFolder, journal: Journal) -> Iterator[None]:
    """Begin an empty journal beside the mark; a failure leaves neither results nor decisions.

    Raises:
        OutputError: If the folder can't be written.
    """
    if journal.has_lines:
        folder.clear_records(journal.empty)
    mark = folder.root / _NAME
    with as_output_error(folder.root):
        mark.touch()
    journal.make()
    try:
        yield
    except BaseException:
        # Half of a merged run is of no use, and would be taken for a run.
        folder.remove_records()
        with as_output_error(folder.review):
            folder.review.unlink(missing_ok=True)
        raise
    finally:
        with as_output_error(folder.root):
            mark.unlink(missing_ok=True)
