"""`eval --json`: scores as JSON, and read back for `compare`.

Besides the figures the file holds what they were computed from, packed: so a comparison can resample images without
the data set. `matches` is base64 of numpy's compressed archive (.npz) for each stage.
"""

import base64
import hashlib
import io
import json
import zipfile
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
from grounded_seg.scoring.average_precision import FIGURES
from grounded_seg.scoring.columns import KIND_NAMES, Index
from grounded_seg.scoring.matching import Matches
from grounded_seg.scoring.measure import Scores, Stage
from grounded_seg.scoring.presence import PresenceCounts, PresenceTallies, counts_by_image

_BITS = ("matched", "ignored", "truth_counts")
"""Boolean arrays of a match, stored eight to a byte."""
_COLUMNS = {
    "answer": "prediction",
    **{name: name for name in ("image", "category", "score", "rank", "truth", "truth_image", "truth_category")},
}
"""Name in the file of each other array of a match."""


@dataclass(frozen=True, eq=False)
class SavedScores:
    """What a comparison needs of a report."""

    path: Path
    file_names: tuple[str, ...]
    """Of the images, in the order of the matches."""
    matches: Mapping[str, Matches]
    """By stage."""
    tallies: PresenceTallies
    presence_on: str
    """boxes or masks: what presence was measured on."""
    score_threshold: float
    cut_at: float | None
    """Confidence threshold that the predictions were cut at; None where that isn't known."""
    truth_sha256: str | None
    """Of the data set; None in reports that were written before this was kept."""

    @cached_property
    def presence_by_image(self) -> PresenceCounts:
        """The questions, counted for each image."""
        return counts_by_image(self.tallies, len(self.file_names))


def report_of(
    scores: Scores, speed: Mapping[str, float] | None, notes: tuple[str, ...], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    """Scores in the form of `eval --json`; parts that weren't measured are left out, so is the speed of a file."""
    report: dict[str, Any] = {name: _stage_report(stage) for name, stage in scores.stages().items()}
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
    report["matches"]["presence"] = _packed(_presence_columns(scores.tallies))
    return report


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report whole or not at all; its folder is made if it is missing.

    Raises:
        OutputError: If it can't be written.
    """
    instead = "another file with --json"
    with as_output_error(path, instead):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n", instead)


def read_report(path: Path) -> SavedScores:
    """Read back what `eval --json` wrote.

    Raises:
        InputError: If the file can't be read, or is no such report.
    """
    report = read_json(path)
    try:
        data_set = report["data_set"]
        categories = {one["id"]: one["name"] for one in data_set["categories"]}
        index = Index(
            image_ids=tuple(image["id"] for image in data_set["images"]),
            category_ids=tuple(categories),
            names=tuple(categories.values()),
        )
        packed = dict(report["matches"])
        return SavedScores(
            path=path,
            file_names=tuple(image["file_name"] for image in data_set["images"]),
            tallies=PresenceTallies.from_columns(**_unpacked(packed.pop("presence"))),
            matches={name: _matches_from(_unpacked(text), index) for name, text in packed.items()},
            presence_on=str(report["presence"]["measured_on"]),
            score_threshold=float(report["presence"]["score_threshold"]),
            cut_at=_cut_at(report["made_with"]),
            truth_sha256=data_set.get("sha256"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is no report of eval ({type(error).__name__}: {error}); name a file that `eval --json` wrote"
        ) from error


def truth_sha256(data_set: DataSet) -> str:
    """Hash of what is measured against: names, sizes, classes, boxes, areas, masks.

    The order of the file and its ids don't matter, nor how a mask is written, only which pixels it has.
    """
    names = {image.id: image.file_name for image in data_set.images}
    sizes = [
        (image.file_name, None if image.size is None else (image.size.width, image.size.height))
        for image in data_set.images
    ]
    objects = [
        (
            names[one.image_id],
            data_set.classes[one.category_id],
            [float(value) for value in one.bbox_xywh],
            float(one.area),
            one.is_crowd,
            None if one.mask is None else (one.mask.size.width, one.mask.size.height, one.mask.counts.hex()),
        )
        for one in data_set.objects
    ]
    hasher = hashlib.sha256()
    for part in (sizes, data_set.classes.values(), objects):
        lines = sorted(map(json.dumps, part))
        hasher.update(f"{len(lines)}\n{chr(10).join(lines)}\n".encode("ascii"))
    return hasher.hexdigest()


def _cut_at(made_with: Mapping[str, Any]) -> float | None:
    """Look up the confidence threshold that predictions were kept by, of the models or of the run that was read."""
    threshold = made_with.get("detect", {}).get("score_threshold")
    return None if threshold is None else float(threshold)


def _stage_report(stage: Stage) -> dict[str, Any]:
    report: dict[str, Any] = {name: getattr(stage.summary, name) for name in FIGURES}
    report["per_class"] = [asdict(one) for one in stage.summary.per_class]
    if stage.per_prompt:
        report["per_prompt"] = [asdict(one) for one in stage.per_prompt]
    return report


def _arrays_of(matches: Matches) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {name: getattr(matches, column) for name, column in _COLUMNS.items()}
    for name in _BITS:
        bits = getattr(matches, name)
        arrays[name] = np.packbits(bits)
        arrays[f"{name}_shape"] = np.array(bits.shape)
    return arrays


def _presence_columns(tallies: PresenceTallies) -> dict[str, npt.NDArray[Any]]:
    columns = {name: getattr(tallies, name) for name in ("image", "category", "n_truths", "n_answers", "n_right")}
    return {name: column.astype(np.int64) for name, column in columns.items()}


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
