"""CVAT reads COCO files, but keeps only those attributes that the labels of its task name: this writes the labels."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ATTRIBUTES = ("label", "prompt", "detector_score", "mask_score", "score")


def write_cvat_labels(path: Path, categories: Sequence[str]) -> None:
    """Write what is to be pasted into the "Raw" tab where CVAT asks for a task's labels.

    Args:
        path: The file.
        categories: In order.
    """
    attributes = [
        {"name": name, "input_type": "text", "mutable": False, "values": [""], "default_value": ""}
        for name in ATTRIBUTES
    ]
    labels: list[dict[str, Any]] = [{"name": name, "attributes": attributes} for name in categories]
    path.write_text(json.dumps(labels, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
