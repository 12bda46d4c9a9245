"""Pascal VOC: an XML file per image with boxes, and lists of images per split.

Coordinates are whole pixels that count from 1, both ends included: the first pixel alone is the box 1, 1, 1, 1. The
form has no room for masks, scores or crowds.
"""

import math
from collections.abc import Mapping
from xml.etree import ElementTree

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.writer import Target, losses_of_head, n_renamed, single_objects, unique_names
from grounded_seg.records import ImageSize


class VocWriter:
    """Writes `Annotations/NAME.xml` and `ImageSets/Main/SPLIT.txt`; the images belong into `JPEGImages/`."""

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        self._target = target
        self.losses = losses_of_head(target)
        self._names = unique_names(target.file_names, ".xml", flat=True)
        self._stems: dict[str, list[str]] = {}
        self.losses.add("image names changed to be unique in one folder", n_renamed(self._names))

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's XML file, also where there is nothing on it."""
        name = self._names[image.file_name]
        root = ElementTree.Element("annotation")
        _texts(root, {"folder": "JPEGImages", "filename": name})
        size = ElementTree.SubElement(root, "size")
        _texts(size, {"width": image.size.width, "height": image.size.height, "depth": 3})
        _texts(root, {"segmented": 0})
        for label in single_objects(image, self.losses, keeps_attributes=False):
            self.losses.add("scores left out", label.score is not None)
            self.losses.add("masks left out", label.mask is not None)
            _add_object(root, label, image.size)
        ElementTree.indent(root)
        path = (self._target.output / "Annotations" / name).with_suffix(".xml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(ElementTree.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
        self._stems.setdefault({"": "trainval", "valid": "val"}.get(split, split), []).append(path.stem)

    def picture_name(self, file_name: str, split: str) -> str:  # noqa: ARG002  (all splits share a folder)
        """In `JPEGImages/`, where all splits are together."""
        return f"JPEGImages/{self._names[file_name]}"

    def close(self) -> None:
        """Write which images belong to which split; a data set without splits is all `trainval`."""
        folder = self._target.output / "ImageSets" / "Main"
        folder.mkdir(parents=True, exist_ok=True)
        for split, stems in self._stems.items():
            (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")


def _add_object(root: ElementTree.Element, label: Label, size: ImageSize) -> None:
    x0, y0, x1, y1 = label.box_xyxy
    # A box that ends within a pixel takes all of it, and at least one.
    left, top = (min(max(math.floor(edge), 0), side - 1) for edge, side in ((x0, size.width), (y0, size.height)))
    right, bottom = min(math.ceil(x1), size.width), min(math.ceil(y1), size.height)
    item = ElementTree.SubElement(root, "object")
    _texts(item, {"name": label.category, "pose": "Unspecified", "truncated": 0, "difficult": 0})
    box = ElementTree.SubElement(item, "bndbox")
    corners = {"xmin": left + 1, "ymin": top + 1, "xmax": max(right, left + 1), "ymax": max(bottom, top + 1)}
    _texts(box, corners)


def _texts(parent: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)
