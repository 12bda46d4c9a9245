"""A COCO data set, clean: whatever the file was like, ids are integers and every reference leads somewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from grounded_seg.coco.values import mask_of_box
from grounded_seg.records import ImageSize, RunLength
from grounded_seg.scoring.columns import Kind


@dataclass(frozen=True)
class DataSetImage:
    """An image of a data set."""

    id: int
    file_name: str
    """As the file gives it, with forward slashes."""
    size: ImageSize | None
    """None where the file doesn't say."""


@dataclass(frozen=True)
class DataSetObject:
    """An object that is to be found."""

    image_id: int
    category_id: int
    bbox_xywh: tuple[float, float, float, float]
    """x, y, width, height in pixels."""
    mask: RunLength | None
    """None where only its box is known."""
    area: float
    """In square pixels, as the annotator says; else the mask's or box's own."""
    is_crowd: bool


@dataclass(frozen=True)
class DataSet:
    """A COCO data set, clean: ids are integers and distinct, every reference leads somewhere."""

    path: Path
    images: tuple[DataSetImage, ...]
    """By id."""
    classes: Mapping[int, str]
    """Name of each class by id; no name twice."""
    objects: tuple[DataSetObject, ...]
    image_ids: Mapping[str, int]
    """Our id of each image by the text of the file's id."""
    category_ids: Mapping[str, int]
    """Our id of each class by the text of the file's id."""
    notes: tuple[str, ...]
    """What was read in spite of its form, a line each."""

    @property
    def has_masks(self) -> bool:
        """Whether masks can be measured: any object has one, or there are no objects at all."""
        return not self.objects or any(one.mask is not None for one in self.objects)

    @cached_property
    def objects_by_image(self) -> Mapping[int, tuple[DataSetObject, ...]]:
        """The objects of each image that has any, by its id."""
        groups: dict[int, list[DataSetObject]] = {}
        for one in self.objects:
            groups.setdefault(one.image_id, []).append(one)
        return {image_id: tuple(group) for image_id, group in groups.items()}

    def only_classes(self, names: frozenset[str]) -> "DataSet":
        """Leave out the other classes and their objects."""
        classes = {class_id: name for class_id, name in self.classes.items() if name in names}
        left = tuple(one for one in self.objects if one.category_id in classes)
        ids = {text: class_id for text, class_id in self.category_ids.items() if class_id in classes}
        return replace(self, classes=classes, objects=left, category_ids=ids)

    def document(self, kind: Kind = "bbox") -> dict[str, Any]:
        """Give the clean data set in COCO's form, masks as `RunLength` records.

        For masks, an object that has none becomes a crowd of its box's form: what is predicted there is neither right
        nor wrong.
        """
        sizes = {image.id: image.size for image in self.images}
        annotations: list[dict[str, Any]] = []
        for place, one in enumerate(self.objects, start=1):
            annotation = {
                "id": place,
                "image_id": one.image_id,
                "category_id": one.category_id,
                "bbox": list(one.bbox_xywh),
                "area": one.area,
                "iscrowd": int(one.is_crowd),
                "segmentation": one.mask,
            }
            size = sizes[one.image_id]
            if kind == "segm" and one.mask is None:
                if size is None:
                    continue
                annotation |= {"iscrowd": 1, "segmentation": mask_of_box(one.bbox_xywh, size)}
            annotations.append(annotation)
        return {
            "images": [
                {"id": image.id, "file_name": image.file_name}
                | ({} if image.size is None else {"width": image.size.width, "height": image.size.height})
                for image in self.images
            ],
            "categories": [{"id": class_id, "name": name} for class_id, name in self.classes.items()],
            "annotations": annotations,
        }
