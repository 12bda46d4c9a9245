"""What was written set beside what a tool has read, label by label."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from grounded_seg.coco.stream import CocoReader, Label
from grounded_seg.export.settings import LabelFormat, MaskForm
from grounded_seg.export.writer import Losses
from grounded_seg.export.yolo import JOINED
from grounded_seg.geometry.masks import (
    area_px,
    mask_from_run_length,
    mask_iou,
    run_length_from_coco,
    run_length_from_mask,
    run_length_from_polygons,
    tight_box_xyxy,
)
from grounded_seg.geometry.polygons import centre_polygons_from_mask
from grounded_seg.records import ImageSize, RunLength

MOST_OFF_PX = 1.001
"""Of a box's edge: a pixel, and what tools lose in single precision."""


@dataclass(frozen=True)
class Check:
    """One format, read by one tool."""

    tool: str
    format: LabelFormat
    form: MaskForm
    iou_least: float | None = None
    """What a mask has to have in common with the one written; None where the format holds none."""
    has_scores: bool = False
    loses_thin_parts: bool = False
    """The tool makes outlines of masks and drops those of a pixel or two, so real objects' boxes may shrink; only
    rendered ones are compared."""
    drops_crowds: bool = False
    """The tool leaves out what stands for many objects, as trainers do."""
    has_attributes: bool = False
    """The tool passes on what was written as attributes."""
    edge_off_px: int | None = None
    """The tool rounds corners and draws outlines along, so a mask has to be the one written but for so many pixels
    along its edges, whatever their IoU; None where masks are compared by that. Polygons that a person drew stay as they
    are and may have threads, which it draws too: such a mask may only lose no more than that."""
    parts_may_be_joined: bool = False
    """The format has one outline for each label, so masks of several parts grow by the lines that join them. Such a
    mask has to lose nothing, and to be as like the one written as the export has said."""
    parts_are_labels: bool = False
    """The format has one outline for each label, and makes labels of a mask's parts; so each is compared by itself."""


@dataclass
class Outcome:
    """What one check came to."""

    tool: str
    format: str
    form: str
    data: str
    n_written: int = 0
    n_read: int = 0
    box_off_px: float = 0.0
    iou_least: float = 1.0
    n_attributes: int = 0
    """Compared, one by one."""
    n_joined: int = 0
    """Masks of several parts whose parts the format joins, not held against the least IoU."""
    joined_iou_least: float = 1.0
    """Of those."""
    n_parted: int = 0
    """Masks of several parts that the format makes labels of; `n_written` counts the parts."""
    problems: list[str] = field(default_factory=list)


def compare(check: Check, source: Path, read: dict[str, list[dict[str, Any]]], outcome: Outcome) -> None:
    """Set every label that was written beside the one read that is most like it."""
    holds_crowds = check.format in (LabelFormat.COCO, LabelFormat.CVAT, LabelFormat.FIFTYONE)
    keeps_crowds = holds_crowds and not check.drops_crowds
    with CocoReader(source) as written:
        for image_id in written.images:
            image = written.labelled_image(image_id)
            labels = [label for label in image.labels if keeps_crowds or not label.is_crowd]
            if check.parts_are_labels:
                parted = [parts_of(label) for label in labels]
                outcome.n_parted += sum(len(parts) > 1 for parts in parted)
                labels = [part for parts in parted for part in parts]
            found = read.get(image.file_name, read.get(image.file_name.replace("/", "__"), []))
            outcome.n_written += len(labels)
            outcome.n_read += len(found)
            if len(labels) != len(found):
                outcome.problems.append(f"{image.file_name}: {len(labels)} labels written, {len(found)} read")
            for label in labels:
                rest = [one for one in found if one["class"] == label.category]
                if not rest:
                    outcome.problems.append(f"{image.file_name}: no {label.category} was read")
                    continue
                twin = min(rest, key=lambda one, label=label: unlike(label, one))  # type: ignore[misc]
                found = [one for one in found if one is not twin]
                compare_label(check, image.file_name, label, twin, outcome)


def compare_joined(losses: Losses, outcome: Outcome) -> None:
    """Compare what became of masks of several parts with what the export has said of them."""
    n_told = losses.counts[JOINED]
    if n_told != outcome.n_joined:
        outcome.problems.append(f"the export tells of {n_told} joined masks, {outcome.n_joined} were read")
    if outcome.joined_iou_least < losses.iou_least - 1e-6:
        outcome.problems.append(
            f"a joined mask has an IoU of {outcome.joined_iou_least:.4f}, the export has said {losses.iou_least:.4f}"
        )


def parts_of(label: Label) -> list[Label]:
    """Make a label of each part of the mask; pixels that touch at a corner only are parts of their own."""
    if label.mask is None:
        return [label]
    n_numbers, numbers = cv2.connectedComponents(mask_from_run_length(label.mask).astype(np.uint8), connectivity=4)
    masks = [run_length_from_mask(numbers == number) for number in range(1, n_numbers)]
    return [replace(label, mask=mask, box_xyxy=tight_box_xyxy(mask)) for mask in masks]


def mask_of(one: dict[str, Any]) -> RunLength | None:
    """Give the mask that was read; polygons are rasterised as pycocotools does."""
    if one.get("polygons") is not None:
        height, width = one["polygons"]["size"]
        return run_length_from_polygons(one["polygons"]["rings"], ImageSize(width, height))
    return None if one["mask"] is None else run_length_from_coco(one["mask"])


def unlike(label: Label, one: dict[str, Any]) -> float:
    """Say how far apart two labels are: in pixels, and by their masks where boxes are equal."""
    overlap = 0.0
    if label.mask is not None and (mask := mask_of(one)) is not None:
        overlap = float(mask_iou([label.mask], [mask])[0, 0])
    return box_distance_px(label, one) - overlap


def box_distance_px(label: Label, one: dict[str, Any]) -> float:
    """Compare the edges with those of the label's box, or of its mask, whichever the tool has taken."""
    boxes = [label.box_xyxy, *([] if label.mask is None else [tight_box_xyxy(label.mask)])]
    return min(float(np.abs(np.subtract(box, one["box"])).max()) for box in boxes)


def compare_label(check: Check, name: str, label: Label, one: dict[str, Any], outcome: Outcome) -> None:
    """Compare a label with its twin."""
    off = box_distance_px(label, one)
    outcome.box_off_px = max(outcome.box_off_px, off)
    if off > MOST_OFF_PX:
        outcome.problems.append(f"{name}: the box of a {label.category} is {off:.2f} px off")
    if check.has_scores and label.score is not None and abs((one["score"] or 0) - label.score) > 1e-6:
        outcome.problems.append(f"{name}: the score {label.score} came back as {one['score']}")
    if check.has_attributes:
        compare_attributes(name, label, one.get("attributes"), outcome)
    if (check.iou_least is None and check.edge_off_px is None) or label.mask is None:
        return
    mask = mask_of(one)
    if mask is None:
        outcome.problems.append(f"{name}: the mask of a {label.category} is lost")
        return
    iou = float(mask_iou([label.mask], [mask])[0, 0])
    if check.parts_may_be_joined and n_parts(label.mask) > 1:
        outcome.n_joined += 1
        outcome.joined_iou_least = min(outcome.joined_iou_least, iou)
        n_shared = iou / (1 + iou) * (area_px(label.mask) + area_px(mask))
        if n_shared < area_px(label.mask) - 1e-6:
            outcome.problems.append(f"{name}: the joined mask of a {label.category} has lost pixels")
        return
    outcome.iou_least = min(outcome.iou_least, iou)
    is_ours = isinstance(label.record["segmentation"], Mapping)
    if check.edge_off_px is not None and (
        reaches_beyond(label.mask, mask, check.edge_off_px)
        or (is_ours and reaches_beyond(mask, label.mask, check.edge_off_px))
    ):
        outcome.problems.append(f"{name}: the mask of a {label.category} is more than {check.edge_off_px} px off")
    if check.iou_least is not None and iou < check.iou_least:
        outcome.problems.append(f"{name}: the mask of a {label.category} has an IoU of {iou:.4f}")


def compare_attributes(name: str, label: Label, read: Mapping[str, Any] | None, outcome: Outcome) -> None:
    """Compare what stands in the annotation's `attributes`; what a tool adds of its own is no matter."""
    for key, value in label.record.get("attributes", {}).items():
        outcome.n_attributes += 1
        if read is None or key not in read:
            outcome.problems.append(f"{name}: the attribute {key} of a {label.category} is lost")
        elif read[key] != value:
            outcome.problems.append(f"{name}: the attribute {key}, {value!r}, came back as {read[key]!r}")


def reaches_beyond(mask: RunLength, other: RunLength, edge_px: int) -> bool:
    """Tell whether a mask has a pixel farther than that from another."""
    side = 2 * edge_px + 1
    grown = cv2.dilate(mask_from_run_length(other).astype(np.uint8), np.ones((side, side), np.uint8))
    return bool((mask_from_run_length(mask) & (grown == 0)).any())


def n_parts(mask: RunLength) -> int:
    """Count the outlines that the mask needs."""
    return len(centre_polygons_from_mask(mask))
