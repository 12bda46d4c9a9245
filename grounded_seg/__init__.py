"""A sentence and an image go in; boxes, masks and COCO annotations come out.

Boxes, everywhere in this package: origin top-left, x right, y down, continuous pixel edges, half-open. A full image is
(0, 0, W, H) and a box's area is (x1 - x0) * (y1 - y0). Always xyxy; xywh exists only in `coco` and `export`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grounded_seg.api.commands import (
        calibrate,
        evaluate,
        export_labels,
        merge_runs,
        read_coco,
        repair_coco,
        run_images,
        run_status,
        validate_coco,
    )
    from grounded_seg.coco.check.rules import Fault
    from grounded_seg.coco.data_set import DataSet
    from grounded_seg.detect.prompts import PromptSet
    from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
    from grounded_seg.errors import (
        DeviceError,
        GroundedSegError,
        ImageError,
        InputError,
        OutputError,
        UsageError,
        WeightsError,
    )
    from grounded_seg.evaluation.evaluate import Evaluation
    from grounded_seg.export.export import ExportReport
    from grounded_seg.images.in_memory import ImageLike
    from grounded_seg.pipeline.result import PromptedResult
    from grounded_seg.records import Detection, Image, ImageSize, ImageSkipped, Instance, RunLength
    from grounded_seg.runs.manifest import Counts
    from grounded_seg.runs.status import RunsStatus, RunStatus
    from grounded_seg.scoring.fit_maps import CalibrationReport
    from grounded_seg.settings import DetectSettings, ModelSettings, SegmentSettings, TileSettings
    from grounded_seg.weights.locate import PresetParts, presets

__version__ = "0.2.0"
__all__ = [
    "CalibrationReport",
    "Counts",
    "DataSet",
    "DetectSettings",
    "Detection",
    "DeviceError",
    "Evaluation",
    "ExportReport",
    "Fault",
    "GroundedSegError",
    "GroundedSegmenter",
    "Image",
    "ImageError",
    "ImageLike",
    "ImageSize",
    "ImageSkipped",
    "InputError",
    "Instance",
    "ModelSettings",
    "OutputError",
    "PresetParts",
    "PromptSet",
    "PromptedResult",
    "RunLength",
    "RunStatus",
    "RunsStatus",
    "SegmentSettings",
    "TileSettings",
    "UsageError",
    "WeightsError",
    "__version__",
    "calibrate",
    "evaluate",
    "export_labels",
    "merge_runs",
    "presets",
    "read_coco",
    "repair_coco",
    "run_images",
    "run_status",
    "validate_coco",
]

_MODULES = {
    "api.commands": "calibrate evaluate export_labels merge_runs read_coco repair_coco run_images run_status "
    "validate_coco",
    "coco.data_set": "DataSet",
    "coco.check.rules": "Fault",
    "detect.prompts": "PromptSet",
    "engine.grounded_segmenter": "GroundedSegmenter",
    "errors": "DeviceError GroundedSegError ImageError InputError OutputError UsageError WeightsError",
    "evaluation.evaluate": "Evaluation",
    "export.export": "ExportReport",
    "images.in_memory": "ImageLike",
    "pipeline.result": "PromptedResult",
    "records": "Detection Image ImageSize ImageSkipped Instance RunLength",
    "runs.manifest": "Counts",
    "runs.status": "RunStatus RunsStatus",
    "scoring.fit_maps": "CalibrationReport",
    "settings": "DetectSettings ModelSettings SegmentSettings TileSettings",
    "weights.locate": "PresetParts presets",
}
"""Where the public names are defined."""


def __getattr__(name: str) -> Any:
    """Load what is public on first use, so that importing the package stays fast."""
    for module, names in _MODULES.items():
        if name in names.split():
            value = getattr(import_module(f"grounded_seg.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
