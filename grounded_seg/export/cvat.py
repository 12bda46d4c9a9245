"""CVAT reads COCO files, but keeps only those attributes that the labels of its task name: this writes the labels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grounded_seg.coco.labels import LabelledImage


class CvatLabels:
    """Collects the attributes, and writes what goes into the "Raw" tab where CVAT asks for a task's labels."""

    def __init__(self, categories: Sequence[str]) -> None:
        """Start; nothing is written yet.

        Args:
            categories: In order.
        """
        self._categories = categories
        # A dictionary keeps the order in which they come up.
        self._attributes: dict[str, None] = {}

    def add(self, image: LabelledImage) -> None:
        """Take note of the attributes of an image's labels; CVAT takes a label's score for one too."""
        for label in image.labels:
            attributes = label.record.get("attributes")
            self._attributes.update(dict.fromkeys(attributes if isinstance(attributes, Mapping) else ()))
            if label.score is not None:
                self._attributes["score"] = None

    def write(self, path: Path) -> None:
        """Write the file."""
        attributes = [
            {"name": name, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
            for name in self._attributes
        ]
        labels: list[dict[str, Any]] = [{"name": name, "attributes": attributes} for name in self._categories]
        path.write_text(json.dumps(labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
