"""Tell the models of the Segment Anything family apart, and load one to where it runs."""

import json
import os
from pathlib import Path

import torch

from grounded_seg.errors import WeightsError
from grounded_seg.segment.network import BoxNetwork
from grounded_seg.segment.sam.build import CONFIG_FILE, MODEL_TYPE, load_sam
from grounded_seg.segment.sam.network import SamNetwork


def load_network(source: Path, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> BoxNetwork:
    """Load segment-anything's files and folders with its modules, transformers' folders with transformers.

    Args:
        source: A weight file, which is segment-anything's, or a folder, whose `config.json` names its family.
        device: Where it is to run.
        dtype: Number format to compute in.
        compiled: Send the image encoder through torch.compile.

    Raises:
        WeightsError: If the weights are missing, damaged, or of another model.
    """
    model_type = _model_type(source / CONFIG_FILE) if os.path.isdir(source) else MODEL_TYPE
    if model_type == MODEL_TYPE:
        return SamNetwork(load_sam(source), device=device, dtype=dtype, compiled=compiled)
    # transformers takes seconds to import: only for its own layouts.
    from grounded_seg.segment.transformers_sam import FAMILIES, load_transformers_network

    if model_type not in FAMILIES:
        known = ", ".join([MODEL_TYPE, *FAMILIES])
        raise WeightsError(f"{source} holds a model of type {model_type!r}, not a segmenter, which is one of {known}.")
    return load_transformers_network(source, model_type, device, dtype, compiled=compiled)


def _model_type(path: Path) -> str:
    """Read which model a folder holds; that of segment-anything where this can't be told, to fail with its words."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return MODEL_TYPE
    return str(content.get("model_type")) if isinstance(content, dict) else MODEL_TYPE
