"""Join runs of different images into one: their journals line by line, in the order of one run over all of them."""

import hashlib
import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from grounded_seg.coco.entries import leaves_folder
from grounded_seg.coco.image_names import names_among
from grounded_seg.coco.objects import is_plain, object_of
from grounded_seg.coco.parquet import check_can_write_tables, write_results
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import write_text
from grounded_seg.images.find import common_root, root_from
from grounded_seg.records import Address, ImageSize
from grounded_seg.runs.folder import RunFolder, find_runs
from grounded_seg.runs.journal import Journal, read_lines
from grounded_seg.runs.manifest import Counts, hashed_name, read_manifest, refuse_evaluation
from grounded_seg.runs.merge_mark import check_free_for_merge, whole_or_nothing
from grounded_seg.runs.shards import check_shards
from grounded_seg.settings import ResultsForm

_MAX_NAMED = 8
"""Runs named in a message."""
_SHOWN_OF_HASH = 12
"""Digits of a hash in a message."""


@dataclass(frozen=True)
class _Part:
    """A finished run that goes into another."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    root: Path | Address
    """The folder that its images' names are relative to."""
    prompts: Mapping[str, str]
    """The class of each prompt."""
    n_images: int
    shard: int | None
    """Its number; None for a run over all of its images."""

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


class _Merged:
    """What was merged: counts and hash of the names."""

    def __init__(self) -> None:
        self.counts = Counts(is_resumed=True)
        self.names = hashlib.sha256()

    def written(
        self, lines: Iterable[JournalLine], n_images: int, journal: Journal, progress: Callable[[int, int], None]
    ) -> Iterator[JournalLine]:
        """Put lines into the journal, and give each when it stands there."""
        last = None
        for line in lines:
            if line["file_name"] == last:
                raise InputError(f"image {last!r} is in two of the runs; merge runs of different images")
            last = line["file_name"]
            journal.append(line)
            self.counts.add_line(line)
            self.names.update(hashed_name(line["file_name"]))
            progress(self.counts.n_images, n_images)
            yield line


def merge_runs(
    runs: Sequence[Path],
    output: Path,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
    note: Callable[[str], None] = lambda _line: None,
    results: ResultsForm = ResultsForm.COCO,
    finish: Callable[[], object] = lambda: None,
) -> Counts:
    """Join the journals of finished runs into a new run folder with one COCO file; pictures stay where they are.

    Names become relative to the common parent of the runs' images, and stand in the order of one run over all of them.
    The classes keep the order of the first run. Shards give the bytes of one run over their whole list, with its names.
    Memory doesn't grow with the runs.

    Args:
        runs: Folders of runs, or patterns of such, in any order: two or more with the same classes and no image in
            common, or all shards of a list.
        output: A folder that holds no run yet.
        progress: Is told how many images are done, and how many there are.
        note: Is told in the end what was read in spite of its form, a line each.
        results: The form of the results.
        finish: Called when all else is written; it may write decisions, and its failure is that of the merge.

    Raises:
        UsageError: If there is but one run, one isn't finished, classes or calibrations differ, a prompt stands for
            several classes, `output` is in use, or shards are missing, there twice, of other lists or run otherwise.
        InputError: If a folder is no run's, its journal is damaged, or an image is in two of them.
        OutputError: If the results can't be written.
    """
    if results is ResultsForm.PARQUET:
        check_can_write_tables()
    parts, notes = _parts(find_runs(runs)), Notes()
    prompts = _common_prompts(parts, notes)
    root, prefixes = common_root([part.root for part in parts])
    is_whole_list = parts[0].shard is not None
    if is_whole_list:
        _note_roots(parts, note)
        root, prefixes = parts[0].root, ("",) * len(parts)
    folder, merged = RunFolder(output), _Merged()
    check_free_for_merge(folder)
    folder.make()
    with Journal(folder.journal) as journal, whole_or_nothing(folder, journal):
        sources = [part.lines(prefix, notes) for part, prefix in zip(parts, prefixes, strict=True)]
        # Each is in the order of its names, and shards stand one behind the other.
        in_order = chain(*sources) if is_whole_list else heapq.merge(*sources, key=itemgetter("file_name"))
        written = merged.written(in_order, sum(part.n_images for part in parts), journal, progress)
        tables = folder.tables if results is ResultsForm.PARQUET else None
        write_results(written, parts[0].classes, prompts, folder.annotations, tables)
        if is_whole_list:
            _check_is_whole(parts, merged.names)
        write_text(folder.manifest, _manifest(parts, prompts, root, merged))
        finish()
    for one in notes.lines():
        note(one)
    return merged.counts


def _manifest(parts: Sequence[_Part], prompts: Mapping[str, str], root: Path | Address, merged: _Merged) -> str:
    counts = merged.counts.as_json()
    for dropped in ("empty_masks", "unusable_boxes"):
        # Not known of a run that was resumed.
        known = [(part.manifest.get("counts") or {}).get(dropped) for part in parts]
        counts[dropped] = None if None in known else sum(known)
    manifest = {
        "prompts": prompts,
        "paths": [str(part.folder.root) for part in parts],
        "images": {"root": str(root), "count": merged.counts.n_images, "sha256": merged.names.hexdigest()},
        "merged": [part.manifest for part in parts],
        "counts": counts,
        "exit_code": merged.counts.exit_code,
    }
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


def _parts(runs: Sequence[Path]) -> list[_Part]:
    """Read the manifests of all runs; of shards, check that they make up a list, and put them into its order."""
    parts = [_part(run) for run in runs]
    shards = [part for part in parts if part.shard is not None]
    if len(parts) < 2 and not shards:
        raise UsageError("merging takes two runs or more")
    unfinished = [str(part.folder.root) for part in parts if part.manifest["exit_code"] is None]
    if unfinished:
        named = ", ".join(unfinished[:_MAX_NAMED])
        more = f" and {len(unfinished) - _MAX_NAMED} more" if len(unfinished) > _MAX_NAMED else ""
        are, it, its = ("isn't", "it", "its") if len(unfinished) == 1 else ("aren't", "them", "their")
        raise UsageError(f"{named}{more} {are} finished; bring {it} to {its} end with run --resume")
    _check_calibrations(parts)
    if shards:
        check_shards([(part.folder.root, part.manifest) for part in parts])
        parts.sort(key=lambda part: part.shard or 0)
    return parts


def _check_calibrations(parts: Sequence[_Part]) -> None:
    """Refuse to mix scores that mean different things."""
    was = _calibration_of(parts[0].manifest)
    for part in parts[1:]:
        calibration = _calibration_of(part.manifest)
        if calibration != was:
            names = ["none" if one is None else one[:_SHOWN_OF_HASH] for one in (was, calibration)]
            raise UsageError(
                f"{parts[0].folder.root} and {part.folder.root} have scores of different calibrations ({names[0]}, "
                f"{names[1]}); run one of them again with the same --calibration"
            )


def _calibration_of(manifest: Mapping[str, Any]) -> str | None:
    """The hash of a run's calibration; runs that were merged have the same."""
    merged = manifest.get("merged")
    if isinstance(merged, list) and merged:
        return _calibration_of(merged[0])
    calibration = (manifest.get("models") or {}).get("calibration")
    return None if calibration is None else str(calibration["sha256"])


def _part(run: Path) -> _Part:
    folder = RunFolder(run)
    if not os.path.lexists(run):
        raise InputError(f"no run is at {run}; check the path")
    manifest = read_manifest(folder.manifest)
    refuse_evaluation(manifest, run)
    try:
        # What is read later has to be of its kind.
        manifest["exit_code"], dict(manifest.get("counts") or {}), _calibration_of(manifest)
        images, shard = manifest["images"], manifest.get("shard")
        os.fsencode(images["root"])
        number = None if shard is None else int(shard["number"])
        part = _Part(folder, manifest, root_from(images["root"]), dict(manifest["prompts"]), images["count"], number)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{folder.manifest} isn't that of a run ({why}); name folders that run wrote") from error
    if not folder.journal.is_file():
        raise InputError(f"{folder.journal} isn't there; name folders that run wrote")
    return part


def _note_roots(parts: Sequence[_Part], note: Callable[[str], None]) -> None:
    """Say so where shards saw their list in different folders, as on machines that mount it differently."""
    roots = list(dict.fromkeys(str(part.root) for part in parts))
    if len(roots) > 1:
        note(
            f"the shards found the images in different folders, {roots[0]} and {roots[1]}, under the same names; "
            "if they aren't the same images, run the shards again"
        )


def _check_is_whole(parts: Sequence[_Part], names: "hashlib._Hash") -> None:
    """Check by their hash that the names are those of the list that was cut into shards."""
    if names.hexdigest() != parts[0].manifest["shard"]["whole"]["sha256"]:
        raise InputError(
            "the journals of the shards don't hold the images of their list, each once and in its order; one was "
            "changed by hand, or is another run's: run that shard again"
        )


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
