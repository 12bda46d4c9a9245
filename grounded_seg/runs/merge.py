"""Join runs of different images into one: their journals line by line, in the order of one run over all of them."""

import heapq
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from grounded_seg.coco.entries import leaves_folder
from grounded_seg.coco.image_names import names_among
from grounded_seg.coco.objects import is_plain, object_of
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.values import Notes
from grounded_seg.coco.write import write_annotations
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import as_output_error, write_text
from grounded_seg.images.find import common_root
from grounded_seg.records import ImageSize
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import Journal, read_lines
from grounded_seg.runs.manifest import Counts, read_manifest, refuse_evaluation


@dataclass(frozen=True)
class _Part:
    """A finished run that goes into another."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    root: Path
    """The folder that its images' names are relative to."""
    prompts: Mapping[str, str]
    """The class of each prompt."""
    n_images: int

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order asked."""
        return tuple(dict.fromkeys(self.prompts.values()))

    def lines(self, prefix: str, notes: Notes) -> Iterator[JournalLine]:
        """Read the journal, with something put before each name; unusual instances become such as `run` writes."""
        for number, line in enumerate(read_lines(self.folder.journal), start=1):
            place, name = f"{self.folder.journal}:{number}", line["file_name"]
            if leaves_folder(name):
                raise InputError(f"{place}: file_name {name!r} leaves the folder of the images; correct it")
            line["file_name"] = f"{prefix}{name}"
            line["instances"] = list(_plain_instances(line, place, notes))
            yield line


def _plain_instances(line: JournalLine, place: str, notes: Notes) -> Iterator[Any]:
    size = None
    if line["width"] is not None and line["height"] is not None:
        size = ImageSize(line["width"], line["height"])
    for index, one in enumerate(line["instances"]):
        if is_plain(one):
            yield one
            continue
        where = f"{place}: instances[{index}]"
        try:
            read = object_of(one, size, where, notes)
        except ValueError as error:
            raise InputError(f"{where}: {error}; correct it or take the instance out") from error
        if read is not None:
            yield read.plain(one)


def merge_runs(
    runs: Sequence[Path],
    output: Path,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    note: Callable[[str], None] = lambda _line: None,
) -> Counts:
    """Join the journals of finished runs into a new run folder with one COCO file; pictures stay where they are.

    Names become relative to the common parent of the runs' images, and stand in the order of one run over all of them.
    The classes keep the order of the first run. Memory doesn't grow with the runs.

    Args:
        runs: Folders of runs, two or more, with the same classes and no image in common.
        output: A folder that holds no run yet.
        progress: Is told how many images are done, and how many there are.
        note: Is told in the end what was read in spite of its form, a line each.

    Raises:
        UsageError: If there is but one run, one isn't finished, the classes differ, a prompt stands for several
            classes, or `output` is in use.
        InputError: If a folder is no run's, its journal is damaged, or an image is in two of them.
        OutputError: If the results can't be written.
    """
    if len(runs) < 2:
        raise UsageError("merging takes two runs or more")
    parts = [_part(run) for run in runs]
    notes = Notes()
    prompts = _common_prompts(parts, notes)
    root, prefixes = common_root([part.root for part in parts])
    folder, counts = RunFolder(output), Counts(is_resumed=True)
    folder.check_new()
    folder.make()
    with Journal(folder.journal) as journal:
        journal.make()
        try:
            sources = [part.lines(prefix, notes) for part, prefix in zip(parts, prefixes, strict=True)]
            _merge(sources, sum(part.n_images for part in parts), journal, counts, progress)
            with as_output_error(folder.annotations):
                write_annotations(read_lines(folder.journal), parts[0].classes, folder.annotations, prompts)
            manifest = {
                "prompts": prompts,
                "paths": [str(run) for run in runs],
                "images": {"root": str(root), "count": counts.n_images},
                "merged": [part.manifest for part in parts],
                "counts": counts.as_json(),
                "exit_code": counts.exit_code,
            }
            write_text(folder.manifest, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        except BaseException:
            # Half of a merged run is of no use, and would be taken for a run.
            folder.remove_records()
            raise
    for one in notes.lines():
        note(one)
    return counts


def _part(run: Path) -> _Part:
    folder = RunFolder(run)
    if not os.path.lexists(run):
        raise InputError(f"no run is at {run}; check the path")
    manifest = read_manifest(folder.manifest)
    refuse_evaluation(manifest, run)
    try:
        if manifest["exit_code"] is None:
            raise UsageError(f"{run} isn't finished; bring it to its end with run --resume")
        part = _Part(
            folder, manifest, Path(manifest["images"]["root"]), dict(manifest["prompts"]), manifest["images"]["count"]
        )
    except (KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{folder.manifest} isn't that of a run ({why}); name folders that run wrote") from error
    if not folder.journal.is_file():
        raise InputError(f"{folder.journal} isn't there; name folders that run wrote")
    return part


def _common_prompts(parts: Sequence[_Part], notes: Notes) -> dict[str, str]:
    """Bring the prompts of all runs together, unless their classes differ or a prompt stands for several."""
    first, prompts = parts[0], dict(parts[0].prompts)
    for part in parts[1:]:
        own = names_among(part.classes, first.classes, notes)
        if own.keys() != set(part.classes) or set(own.values()) != set(first.classes):
            raise UsageError(
                f"{part.folder.root} has the classes {', '.join(part.classes)}, {first.folder.root} has "
                f"{', '.join(first.classes)}; only runs with the same classes can be merged"
            )
        for prompt, name in part.prompts.items():
            if prompts.setdefault(prompt, own[name]) != own[name]:
                raise UsageError(
                    f"the prompt {prompt!r} is {name!r} in {part.folder.root} and {prompts[prompt]!r} in another run"
                )
    return prompts


def _merge(
    sources: Sequence[Iterator[JournalLine]],
    n_images: int,
    journal: Journal,
    counts: Counts,
    progress: Callable[[int, int], None],
) -> None:
    """Merge the journals, each of which is in the order of its names."""
    last = None
    for line in heapq.merge(*sources, key=itemgetter("file_name")):
        if line["file_name"] == last:
            raise InputError(f"image {last!r} is in two of the runs; merge runs of different images")
        last = line["file_name"]
        journal.append(line)
        counts.add_line(line)
        progress(counts.n_images, n_images)
