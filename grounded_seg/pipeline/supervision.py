"""Results as supervision's `Detections`, for those who have it installed. The home of supervision."""

from typing import TYPE_CHECKING

import numpy as np

from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.geometry.masks import tight_box_xyxy
from grounded_seg.pipeline.arrays import ArrayResult

if TYPE_CHECKING:
    import supervision


def detections_from_result(result: ArrayResult) -> "supervision.Detections":
    """Give what was found on an image as one `supervision.Detections`, whatever is in it.

    `xyxy` is the tight box of the mask, as in the COCO file, or the detector's box where there is no mask. `data` holds
    `class_name`, `label`, `prompt` and `detector_xyxy`.

    Raises:
        UsageError: If supervision isn't installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UsageError(
            f"to_supervision() needs the package supervision ({error}); install it with `pip install supervision`"
        ) from error
    found = result.instances
    boxes = [instance.box_xyxy if instance.mask is None else tight_box_xyxy(instance.mask) for instance in found]
    return supervision.Detections(
        xyxy=array_from_boxes(boxes).astype(np.float32),
        # Without instances there is no mask either, as in its own empty one.
        mask=result.masks if found else None,
        confidence=result.scores,
        class_id=result.class_ids,
        data={
            "class_name": result.class_names,
            "label": result.labels,
            "prompt": result.prompts,
            "detector_xyxy": result.boxes_xyxy,
        },
    )
