"""Results as supervision's `Detections`, for those who have it installed. The home of supervision."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.geometry.masks import mask_from_run_length, tight_box_xyxy
from grounded_seg.records import ImageResult

if TYPE_CHECKING:
    import supervision


def detections_from_result(
    result: ImageResult, classes: Sequence[str], class_by_prompt: Mapping[str, str]
) -> "supervision.Detections":
    """Give what was found on an image as one `supervision.Detections`, whatever is in it.

    `xyxy` is the tight box of the mask, as in the COCO file, or the detector's box where there is no mask. `data` holds
    `class_name`, `label`, `prompt` and `detector_xyxy`.

    Args:
        result: What was found.
        classes: In the order of their numbers, which start at 0.
        class_by_prompt: The class of each prompt.

    Raises:
        UsageError: If supervision isn't installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UsageError(
            "to_supervision() needs the package supervision; install it with `pip install supervision`"
        ) from error
    found = result.instances
    names = [class_by_prompt[instance.detection.prompt] for instance in found]
    boxes = [instance.box_xyxy if instance.mask is None else tight_box_xyxy(instance.mask) for instance in found]
    masks = [mask_from_run_length(instance.mask) for instance in found if instance.mask is not None]
    return supervision.Detections(
        xyxy=array_from_boxes(boxes).astype(np.float32),
        mask=np.stack(masks) if masks else None,
        confidence=np.array([instance.detection.score for instance in found], dtype=np.float32),
        class_id=np.array([list(classes).index(name) for name in names], dtype=np.int64),
        data={
            "class_name": np.array(names, dtype=np.str_),
            "label": np.array([instance.detection.label for instance in found], dtype=np.str_),
            "prompt": np.array([instance.detection.prompt for instance in found], dtype=np.str_),
            "detector_xyxy": array_from_boxes([instance.box_xyxy for instance in found]).astype(np.float32),
        },
    )
