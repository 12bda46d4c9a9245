"""The folder that a run writes: what lies where, and whether it may be written at all.

Files about one image keep its sub-folders and its whole file name, and add to it: `sub/a.jpg` gives
`overlays/sub/a.jpg.jpg` and `masks/sub/a.jpg.001.png`. So `a.jpg` and `a.png` never meet. A sub-folder that is named
like a picture gets an underscore: without it, the pictures of `a.jpg.jpg/b.jpg` would need a folder where the one of
`a.jpg` is. Only a name that would pass a file system's 255 bytes with the addition is shortened.

What changes the folder raises `OutputError` where that can't be done.
"""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import as_output_error, name_within_limit
from grounded_seg.settings import ResultsForm

_IMAGE_FOLDERS = ("overlays", "masks", "crops")
_MAGIC = re.compile(r"[*?[]")
_LIKE_A_PICTURE = re.compile(r"\.(jpg|png)_*$", re.IGNORECASE)
"""Folders whose names end so get one more underscore; then no two become one, and none ends like a picture."""


@dataclass(frozen=True)
class RunFolder:
    """Where each of a run's files belongs."""

    root: Path

    @property
    def annotations(self) -> Path:
        """The COCO file."""
        return self.root / "annotations.json"

    @property
    def journal(self) -> Path:
        """One line per input."""
        return self.root / "results.jsonl"

    @property
    def manifest(self) -> Path:
        """What the run did and with what."""
        return self.root / "run.json"

    @property
    def review(self) -> Path:
        """What people decided about the instances; no run writes or removes it."""
        return self.root / "review.jsonl"

    @property
    def tables(self) -> tuple[Path, Path]:
        """One row an instance, and one row an image, in Parquet; both are there or none."""
        return self.root / "results.parquet", self.root / "images.parquet"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a run, or the decisions about it, are kept in; pictures aren't among them."""
        return self.annotations, self.journal, self.manifest, self.review, *self.tables

    def has_tables(self) -> bool:
        """Tell whether the results are there in Parquet too."""
        return any(path.exists() for path in self.tables)

    def has_results(self, form: ResultsForm) -> bool:
        """Tell whether the results are there in a form."""
        return self.annotations.exists() and (form is ResultsForm.COCO or all(path.exists() for path in self.tables))

    def overlay(self, file_name: str, ending: str) -> Path:
        """The picture of all boxes and masks of an image, in the format of the ending."""
        return self._picture("overlays", file_name, f".{ending}")

    def mask(self, file_name: str, number: int) -> Path:
        """The mask of an image's instance, numbered from 1."""
        return self._picture("masks", file_name, f".{number:03}.png")

    def crop(self, file_name: str, number: int) -> Path:
        """The cut-out of an image's instance, numbered from 1."""
        return self._picture("crops", file_name, f".{number:03}.png")

    def _picture(self, folder: str, file_name: str, ending: str) -> Path:
        *folders, name = file_name.split("/")
        marked = (name_within_limit(part, "_") if _LIKE_A_PICTURE.search(part) else part for part in folders)
        return Path(self.root, folder, *marked, name_within_limit(name, ending))

    def without_own(self, file_names: Sequence[str], root: Path) -> tuple[str, ...]:
        """Leave out the pictures that an earlier run wrote here, as when the folder lies among the images in `root`."""
        images, own = root.resolve(), [(self.root / name).resolve() for name in _IMAGE_FOLDERS]
        if any(images.is_relative_to(folder) for folder in own):
            return ()
        inside = tuple(f"{folder.relative_to(images).as_posix()}/" for folder in own if folder.is_relative_to(images))
        return tuple(name for name in file_names if not name.startswith(inside)) if inside else tuple(file_names)

    def written(self) -> list[Path]:
        """List the files and folders of results that are there."""
        return [path for path in self._results() if path.exists()]

    @as_output_error()
    def check_free(
        self, *, overwrite: bool, resume: bool = False, can_overwrite: bool = True, is_empty: bool = False
    ) -> None:
        """Refuse a folder that is in use; nothing is changed yet.

        Args:
            overwrite: What an earlier run wrote may be replaced.
            resume: An earlier run may be resumed.
            can_overwrite: The command has an option for that, which a message may name.
            is_empty: The earlier run had no images, so no line is in its journal.

        Raises:
            UsageError: If it is no folder; if it holds results, and `overwrite` and `resume` are off; if what it holds
                was not written by a run, and would be lost; if it is to be resumed and the journal is gone; or if
                people decided on results that would be replaced.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"{self.root} is a file; name a folder with --output")
        used = [path.name for path in self.written()]
        if not resume and (overwrite or not used):
            self._refuse_decided()
        if not used:
            return
        if not (overwrite or resume):
            or_replace = "--overwrite to replace it, " if can_overwrite else ""
            raise UsageError(
                f"{self.root} already holds {', '.join(used)}; add --resume to resume that run, {or_replace}or name "
                "another folder with --output"
            )
        if not (self.journal.exists() or self.manifest.exists()):
            raise UsageError(
                f"{self.root} holds {', '.join(used)} that no run of grounded-seg wrote; "
                "name another folder with --output"
            )
        has_lines = self.journal.exists() and self.journal.stat().st_size > 0
        if resume and self.annotations.exists() and not has_lines and not is_empty:
            raise UsageError(
                f"{self.annotations} is there, but not {self.journal.name}, which it was made from; start again with "
                "--overwrite, or name another folder with --output"
            )

    @as_output_error()
    def check_new(self) -> None:
        """Refuse a folder that holds results."""
        used = [path.name for path in self.written()]
        if used:
            raise UsageError(f"{self.root} already holds {', '.join(used)}; name another folder with --output")
        self._refuse_decided()

    def _refuse_decided(self) -> None:
        """Refuse to put other results where people decided on those of a run."""
        if os.path.isfile(self.review):
            raise UsageError(
                f"{self.review} holds decisions about the run that was there; move it away, or name another folder "
                "with --output"
            )

    @as_output_error()
    def make(self) -> None:
        """Make the folder if it isn't there."""
        self.root.mkdir(parents=True, exist_ok=True)

    @as_output_error()
    def clear_records(self, empty_journal: Callable[[], None]) -> None:
        """Take out what an earlier run wrote but its pictures.

        In this order, a run that is killed meanwhile leaves either the earlier one, to be resumed, or an empty journal,
        which resuming begins anew: never a COCO file without its journal, or a journal without its manifest.
        """
        for path in (*self.tables, self.annotations):
            path.unlink(missing_ok=True)
        empty_journal()
        self.manifest.unlink(missing_ok=True)

    @as_output_error()
    def remove_records(self) -> None:
        """Remove COCO file, tables, journal and manifest, as far as they are there."""
        for path in (*self.tables, self.annotations, self.journal, self.manifest):
            path.unlink(missing_ok=True)

    @as_output_error()
    def clear_pictures(self) -> None:
        """Take an earlier run's pictures out, which may be many."""
        for path in (self.root / name for name in _IMAGE_FOLDERS):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _results(self) -> tuple[Path, ...]:
        pictures = (self.root / name for name in _IMAGE_FOLDERS)
        return (self.annotations, *self.tables, self.journal, self.manifest, *pictures)


def find_runs(runs: Sequence[Path]) -> list[Path]:
    """Expand the patterns among the folders of runs: those with results, in the order of the numbers in their names.

    A text with `*`, `?` or `[` is a pattern unless a folder of that very name exists.

    Raises:
        InputError: If a pattern matches no run.
    """
    found: list[Path] = []
    for run in runs:
        if not _MAGIC.search(str(run)) or os.path.lexists(run):
            found.append(run)
            continue
        matches = [Path(text) for text in glob(str(run), recursive=True)]  # noqa: PTH207  (absolute ones too)
        folders = [one for one in matches if RunFolder(one).journal.exists() or RunFolder(one).manifest.exists()]
        if not folders:
            raise InputError(f"no folder of a run matches {str(run)!r}; check the pattern")
        found += sorted(folders, key=_by_numbers)
    return found


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    """Sort shard-2 before shard-10."""
    parts = re.split(r"([0-9]+)", str(path))
    return [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]
