"""`eval --json`: scores as JSON, and read back for `compare`.

Besides the figures the file holds what they were computed from, packed: so a comparison can resample images without
the data set. `matches` is base64 of numpy's compressed archive (.npz) for each stage.
"""

import base64
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.text import read_json
from grounded_seg.errors import InputError
from grounded_seg.files import as_output_error, write_text
from grounded_seg.scoring.columns import KIND_NAMES, Index
from grounded_seg.scoring.matching import Matches
from grounded_seg.scoring.measure import Scores
from grounded_seg.scoring.presence import PresenceCounts, PresenceTallies, presence_counts
from grounded_seg.text.documents import reason_of

_BITS = ("matched", "ignored", "truth_counts")
"""Boolean arrays of matches, stored eight to a byte."""
_COLUMNS = {
    "answer": "prediction",
    **{name: name for name in ("image", "category", "score", "rank", "truth", "truth_image", "truth_category")},
}
"""Name in the file of each other array of matches."""


@dataclass(frozen=True, eq=False)
class SavedScores:
    """What is needed of a report to compare or to calibrate."""

    path: Path
    file_names: tuple[str, ...]
    """Of the images, in their order in the matches of each stage."""
    matches: Mapping[str, Matches]
    tallies: PresenceTallies
    presence_on: str
    """Boxes or masks."""
    score_threshold: float
    cut_at: float | None
    """Confidence threshold of the predictions; None where that isn't known."""
    truth_sha256: str | None
    """None in older reports."""
    data_set: str | None
    """Name of the data set's file; None where that isn't known."""
    made_with: Mapping[str, Any]
    """Where the predictions come from: weights and settings, or the file's name."""

    @cached_property
    def presence_by_image(self) -> PresenceCounts:
        """The questions, counted for each image."""
        return presence_counts(self.tallies, self.tallies.image, len(self.file_names))


def report_of(
    scores: Scores, speed: Mapping[str, float] | None, notes: tuple[str, ...], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores in the form of `eval --json`; parts that weren't measured are left out, so is the speed of a file."""
    report: dict[str, Any] = {}
    for name, stage in scores.stages().items():
        per_prompt = {"per_prompt": list(map(asdict, stage.per_prompt))} if stage.per_prompt else {}
        report[name] = asdict(stage.summary) | per_prompt
    report["presence"] = {
        "measured_on": KIND_NAMES[scores.presence_kind],
        "score_threshold": scores.score_threshold,
        **asdict(scores.presence),
        "per_class": [
            {"name": name, **asdict(summary)}
            for name, summary in zip(scores.index.names, scores.presence_per_class, strict=True)
        ],
    }
    report["calibration"] = {KIND_NAMES[kind]: asdict(one) for kind, one in scores.calibration.items()}
    report["thresholds"] = {"boxes": [asdict(one) for one in scores.thresholds]}
    report["errors"] = {KIND_NAMES[kind]: asdict(one) for kind, one in scores.error_summaries.items()}
    if scores.loss is not None:
        report["errors"]["mask_AP_lost_to"] = asdict(scores.loss)
    if scores.missed_masks is not None:
        report["errors"]["masks_missed"] = asdict(scores.missed_masks)
    if speed is not None:
        report["speed"] = dict(speed)
    if scores.intervals:
        report["intervals"] = scores.intervals
    report["notes"] = list(notes)
    report["made_with"] = dict(made_with)
    report["data_set"] = {
        "file": scores.data_set.path.name,
        "sha256": truth_sha256(scores.data_set),
        "n_objects": len(scores.data_set.objects),
        "categories": [{"id": class_id, "name": name} for class_id, name in scores.data_set.classes.items()],
        "images": [{"id": image.id, "file_name": image.file_name} for image in scores.data_set.images],
    }
    report["matches"] = {name: _packed(_arrays_of(stage.matches)) for name, stage in scores.stages().items()}
    columns = ("image", "category", "n_truths", "n_answers", "n_right")
    report["matches"]["presence"] = _packed({name: getattr(scores.tallies, name).astype(np.int64) for name in columns})
    return report


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report whole or not at all; its folder is made if it is missing."""
    instead = "another file with --json"
    with as_output_error(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n", instead)


def read_report(path: Path) -> SavedScores:
    """Read back what `eval --json` wrote."""
    report = read_json(path)
    try:
        data_set = report["data_set"]
        categories = {one["id"]: one["name"] for one in data_set["categories"]}
        image_ids = tuple(image["id"] for image in data_set["images"])
        index = Index(image_ids, tuple(categories), tuple(categories.values()))
        packed = dict(report["matches"])
        cut_at = report["made_with"].get("detect", {}).get("score_threshold")
        return SavedScores(
            path=path,
            file_names=tuple(image["file_name"] for image in data_set["images"]),
            tallies=PresenceTallies.from_columns(**_unpacked(packed.pop("presence"))),
            matches={name: _matches_from(_unpacked(text), index) for name, text in packed.items()},
            presence_on=str(report["presence"]["measured_on"]),
            score_threshold=float(report["presence"]["score_threshold"]),
            cut_at=None if cut_at is None else float(cut_at),
            truth_sha256=data_set.get("sha256"),
            data_set=data_set.get("file"),
            made_with=dict(report["made_with"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        why = reason_of(error)
        raise InputError(f"{path} is no report of eval ({why}); name a file that `eval --json` wrote") from error


def truth_sha256(data_set: DataSet) -> str:
    """Hash of what is measured against: names, sizes, classes, boxes, areas, masks.

    The order of the file and its ids don't matter, nor how a mask is written, only which pixels it has.
    """
    names = {image.id: image.file_name for image in data_set.images}
    sizes = [(one.file_name, one.size and (one.size.width, one.size.height)) for one in data_set.images]
    objects = [
        (
            *(names[one.image_id], data_set.classes[one.category_id]),
            *(list(map(float, one.bbox_xywh)), float(one.area), one.is_crowd),
            one.mask and (one.mask.size.width, one.mask.size.height, one.mask.counts.hex()),
        )
        for one in data_set.objects
    ]
    hasher = hashlib.sha256()
    for part in (sizes, data_set.classes.values(), objects):
        lines = sorted(map(json.dumps, part))
        hasher.update(f"{len(lines)}\n{chr(10).join(lines)}\n".encode("ascii"))
    return hasher.hexdigest()


def _arrays_of(matches: Matches) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(matches, column) for name, column in _COLUMNS.items()}
    for name in _BITS:
        bits = getattr(matches, name)
        arrays[name] = np.packbits(bits)
        arrays[f"{name}_shape"] = np.array(bits.shape)
    return arrays


def _matches_from(arrays: Mapping[str, npt.NDArray[Any]], index: Index) -> Matches:
    bits = {}
    for name in _BITS:
        shape = tuple(arrays[f"{name}_shape"].tolist())
        bits[name] = np.unpackbits(arrays[name], count=int(np.prod(shape))).astype(np.bool_).reshape(shape)
    return Matches(index=index, **{column: arrays[name] for name, column in _COLUMNS.items()}, **bits)


def _packed(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    memory = io.BytesIO()
    # The stub takes every keyword for its option.
    np.savez_compressed(memory, **dict(arrays))  # type: ignore[arg-type]
    return base64.b64encode(memory.getvalue()).decode("ascii")


def _unpacked(text: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
