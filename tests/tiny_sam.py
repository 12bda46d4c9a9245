"""A tiny `Sam` of random weights, images and boxes for it, and what segment-anything itself makes of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from grounded_seg.records import BoxXyxy, Detection, Image, ImageSize
from grounded_seg.segment.sam.build import SamConfig, build_sam

CPU = torch.device("cpu")
SMALL = SamConfig(
    image_size=128,
    patch_size=8,
    encoder_embed_dim=32,
    encoder_depth=3,
    encoder_num_heads=4,
    encoder_global_attn_indexes=(2,),
    window_size=5,
    prompt_embed_dim=32,
    decoder_depth=2,
    decoder_mlp_dim=64,
    decoder_num_heads=4,
    iou_head_hidden_dim=32,
)
SIZES = [ImageSize(150, 97), ImageSize(97, 150), ImageSize(64, 64), ImageSize(128, 128), ImageSize(301, 40)]


def random_sam() -> Sam:
    """Build the same `Sam` each time; every parameter matters in it, also those that start as zeros."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        sam = build_sam(SMALL)
        for parameter in sam.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return sam


def random_image(size: ImageSize, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    return Image(path=Path("x.png"), pixels=rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8))


def detection(box_xyxy: BoxXyxy) -> Detection:
    return Detection(label="car", prompt="red car", box_xyxy=box_xyxy, score=0.5)


def random_detections(size: ImageSize, n: int, seed: int = 0) -> list[Detection]:
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 0.6, (n, 2))
    ends = starts + rng.uniform(0.1, 0.4, (n, 2))
    boxes = np.concatenate([starts, ends], axis=1) * np.tile([size.width, size.height], 2)
    return [detection((x0, y0, x1, y1)) for x0, y0, x1, y1 in boxes.tolist()]


def official_masks(
    sam: Sam, image: Image, found: list[Detection], *, multimask: bool = False
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Masks (n, masks, height, width) and scores (n, masks) of segment-anything's own predictor."""
    predictor = SamPredictor(sam)
    predictor.set_image(image.pixels)
    boxes = torch.tensor([one.box_xyxy for one in found])
    boxes = predictor.transform.apply_boxes_torch(boxes, (image.height, image.width))
    masks, scores, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=multimask)
    return masks.numpy(), scores.numpy()
