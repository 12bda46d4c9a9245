"""What the page is told about one image, as JSON: its instances with their masks and decisions, and true objects."""

from collections.abc import Sequence
from typing import Any

from grounded_seg.review.decisions_made import ReviewedImage, ReviewedInstance
from grounded_seg.review.page.journal_index import Flag
from grounded_seg.review.page.selection import ACCEPTED, REJECTED, RELABELLED, STATES, UNDECIDED, VERDICTS


def item_of(
    image: int,
    reviewed: ReviewedImage,
    flags: Sequence[int],
    verdicts: Sequence[int] | None,
    objects: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Describe an image.

    Args:
        image: Its index in the journal.
        reviewed: Its line, with what was decided.
        flags: See `Flag`, of the instances of the line.
        verdicts: Indices in `VERDICTS`, likewise; None without ground truth.
        objects: What is really there.
    """
    line = reviewed.line
    instances = []
    for number, one in enumerate(reviewed.instances):
        is_own = number < len(flags)
        described = instance_item(one, Flag(flags[number]) if is_own else Flag(0))
        described["verdict"] = VERDICTS[verdicts[number]] if verdicts is not None and is_own else None
        instances.append(described)
    return {
        "index": image,
        "file_name": line["file_name"],
        "width": line["width"],
        "height": line["height"],
        "skipped": line["reason"] if line["status"] == "skipped" else None,
        "is_looked_through": reviewed.is_looked_through,
        "instances": instances,
        "objects": list(objects),
    }


def instance_item(one: ReviewedInstance, flags: Flag) -> dict[str, Any]:
    """Describe an instance."""
    instance, attributes = one.instance, one.instance["attributes"]
    return {
        "key": one.key,
        "label": attributes["label"],
        "prompt": attributes["prompt"],
        "class": one.class_name,
        "own_class": one.own_class,
        "score": instance["score"],
        "mask_score": attributes["mask_score"],
        "bbox": instance["bbox"],
        "detector_bbox": instance["detector_bbox"],
        "segmentation": instance["segmentation"],
        "leaves_box": bool(flags & Flag.LEAVES_BOX),
        "touches_border": bool(flags & Flag.TOUCHES_BORDER),
        "is_new": one.is_new,
        "state": STATES[_state(one)],
    }


def _state(one: ReviewedInstance) -> int:
    if one.decision is None:
        return UNDECIDED
    if one.is_rejected:
        return REJECTED
    return RELABELLED if one.decision.class_name else ACCEPTED
