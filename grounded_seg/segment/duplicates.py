"""Masks that cover the same thing: by IoU, or one within the other."""

from collections.abc import Sequence

from grounded_seg.geometry.masks import mask_containment, mask_iou
from grounded_seg.records import Instance, RunLength


def without_duplicates(
    instances: Sequence[Instance], iou_threshold: float, containment_threshold: float
) -> tuple[Instance, ...]:
    """Drop instances whose mask repeats that of a higher-scored one of the same prompt; the order stays.

    Args:
        instances: With masks, all of one image.
        iou_threshold: In [0, 1]; see `distinct_masks`.
        containment_threshold: Likewise.
    """
    kept: set[int] = set()
    for prompt in dict.fromkeys(instance.detection.prompt for instance in instances):
        of_prompt = [index for index, instance in enumerate(instances) if instance.detection.prompt == prompt]
        best_first = sorted(of_prompt, key=lambda index: -instances[index].detection.score)
        masks = [mask for index in best_first if (mask := instances[index].mask) is not None]
        kept.update(best_first[place] for place in distinct_masks(masks, iou_threshold, containment_threshold))
    return tuple(instance for index, instance in enumerate(instances) if index in kept)


def distinct_masks(masks: Sequence[RunLength], iou_threshold: float, containment_threshold: float) -> list[int]:
    """Choose masks greedily, so that no chosen one repeats an earlier chosen one.

    Args:
        masks: From the best to the worst, of one size, none empty.
        iou_threshold: More IoU than this makes a duplicate, in [0, 1].
        containment_threshold: So does a larger share of the smaller mask that lies within the other, in [0, 1].

    Returns:
        Places of the chosen ones, rising.
    """
    repeats = (mask_iou(masks, masks) > iou_threshold) | (mask_containment(masks, masks) > containment_threshold)
    chosen: list[int] = []
    for place in range(len(masks)):
        if not repeats[place, chosen].any():
            chosen.append(place)
    return chosen
