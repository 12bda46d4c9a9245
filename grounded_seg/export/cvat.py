"""CVAT reads COCO files, but keeps only attributes that the labels of its task name: these are written as well."""

import json
from collections.abc import Mapping
from typing import Any

from grounded_seg.coco.stream import LabelledImage
from grounded_seg.export.coco import CocoWriter
from grounded_seg.export.writer import Target


class CvatWriter(CocoWriter):
    """Writes a COCO file, and `labels.json` for the "Raw" tab where CVAT asks for a task's labels."""

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        super().__init__(target)
        # A dictionary keeps the order in which they come up.
        self._attributes: dict[str, None] = {}

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image, and note the attributes of its labels; CVAT takes a label's score for one too."""
        super().add(image, split)
        for label in image.labels:
            attributes = label.record.get("attributes")
            self._attributes.update(dict.fromkeys(attributes if isinstance(attributes, Mapping) else ()))
            if label.score is not None:
                self._attributes["score"] = None

    def close(self) -> None:
        """Finish the COCO file, and write the labels."""
        super().close()
        attributes = [
            {"name": name, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
            for name in self._attributes
        ]
        labels: list[dict[str, Any]] = [{"name": name, "attributes": attributes} for name in self._target.class_names]
        text = json.dumps(labels, indent=1, ensure_ascii=False)
        (self._target.output / "labels.json").write_text(text + "\n", encoding="utf-8")
