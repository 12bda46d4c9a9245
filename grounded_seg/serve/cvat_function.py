"""Auto-annotation function for CVAT: `cvat-cli task auto-annotate ID --function-module` with this module's name.

cvat-cli hands the parameters of `create` over, as in `-p prompts='str:red car; ball' -p preset=str:base-ft`. It loads
the models in its own process and writes their labels into a task whose labels have the names of the classes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grounded_seg.detect.prompts import Prompts, PromptSet, prompt_set_from
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import mask_from_run_length, tight_box_xyxy
from grounded_seg.records import Instance

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True, eq=False)
class CvatFunction:
    """What CVAT's driver needs of a detection function."""

    spec: Any
    """Its labels, as `DetectionFunctionSpec`."""
    segmenter: GroundedSegmenter
    prompts: PromptSet
    score_threshold: float
    """Where CVAT names none."""
    tolerance_px: float

    def detect(self, context: Any, image: "PIL.Image.Image") -> list[Any]:
        """Give the shapes on one frame, as CVAT's `DetectionFunction` has it."""
        threshold = context.conf_threshold
        limit = self.score_threshold if threshold is None else float(threshold)
        result = self.segmenter(image, self.prompts, score_threshold=limit)
        return [
            shape
            for number, instance in enumerate(result.instances, start=1)
            for shape in self._shapes(instance, number, as_polygon=bool(context.conv_mask_to_poly))
        ]

    def _shapes(self, instance: Instance, number: int, *, as_polygon: bool) -> list[Any]:
        # CVAT's own library, wherever this is run by CVAT's command line.
        import cvat_sdk.auto_annotation as cvat
        from cvat_sdk.masks import encode_mask
        from cvat_sdk.models import LabeledShapeRequest

        classes = self.prompts.classes
        label = classes.index(self.prompts.class_by_prompt[instance.prompt]) + 1
        # Releases before 2.41 have no score.
        more: dict[str, Any] = {"score": instance.score} if "score" in LabeledShapeRequest.attribute_map else {}
        if instance.mask is None:
            return [cvat.rectangle(label, [float(edge) for edge in instance.box_xyxy], **more)]
        if not as_polygon:
            mask = mask_from_run_length(instance.mask)
            return [cvat.mask(label, encode_mask(mask, tight_box_xyxy(instance.mask)), **more)]
        rings = instance.mask.polygons(self.tolerance_px)
        if len(rings) > 1:
            more["group"] = number
        return [cvat.polygon(label, ring.ravel().tolist(), **more) for ring in rings]


def create(
    prompts: Prompts,
    preset: str = "base-ft",
    *,
    detector: str | None = None,
    adapter: str | None = None,
    segmenter: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    score_threshold: float = 0.5,
    tolerance_px: float = 1.0,
    boxes_only: bool = False,
) -> CvatFunction:
    """Load the models; cvat-cli calls this with its parameters.

    Args:
        prompts: What to look for, `;` between several, or `@FILE.yaml` with a class for each. The classes are the names
            of the task's labels.
        preset: As of `run`, like the next five.
        detector: See `GroundedSegmenter.from_preset`.
        adapter: Likewise.
        segmenter: Likewise.
        device: Likewise.
        dtype: Likewise.
        score_threshold: Drop boxes below this score, unless CVAT names another.
        tolerance_px: How far a polygon may stray from its mask, where CVAT asks for polygons.
        boxes_only: Give boxes, and load no segmenter.

    Raises:
        UsageError: If cvat-sdk isn't installed, or a parameter is wrong.
        WeightsError, DeviceError: If the models can't be loaded.
    """
    try:
        import cvat_sdk.auto_annotation as cvat
    except ImportError as error:
        raise UsageError(f"this function needs CVAT's library ({error}); pip install cvat-sdk cvat-cli") from error
    asked = prompt_set_from(prompts)
    kind = "rectangle" if boxes_only else "mask"
    labels = [cvat.label_spec(name, number, type=kind) for number, name in enumerate(asked.classes, start=1)]
    loaded = GroundedSegmenter.from_preset(
        preset,
        detector=detector,
        adapter=adapter,
        segmenter=segmenter,
        device=device,
        dtype=dtype,
        boxes_only=boxes_only,
        score_threshold=score_threshold,
    )
    return CvatFunction(cvat.DetectionFunctionSpec(labels=labels), loaded, asked, score_threshold, tolerance_px)
