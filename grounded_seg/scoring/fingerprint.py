"""Tell whether two evaluations had the same truth: a hash of what is measured against."""

import hashlib
import json

from grounded_seg.coco.data_set import DataSet


def truth_sha256(data_set: DataSet) -> str:
    """Hash images, classes and objects: names, sizes, boxes, areas, masks.

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
