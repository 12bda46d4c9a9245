"""segment-anything's models built, loaded and saved, from ViT-H down to a few megabytes.

The modules are segment-anything's own; weights are stored as an official `.pth`, as the same tensors in a
`.safetensors`, or as a folder with `config.json` beside `model.safetensors`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from grounded_seg.errors import WeightsError
from grounded_seg.segment.sam.config import SamConfig
from grounded_seg.weights.strict_loading import misfits, read_tensor_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "segment-anything"
"""Marks our `config.json` as one for segment-anything's modules, beside the layouts of other libraries."""

PIXEL_MEAN_RGB = (123.675, 116.28, 103.53)
PIXEL_STD_RGB = (58.395, 57.12, 57.375)


def build_sam(config: SamConfig) -> Sam:
    """segment-anything's modules at the sizes of `config`, with fresh weights, in evaluation mode.

    `SamConfig.vit_b()`, `vit_l()` and `vit_h()` give those of segment-anything's own registry (`build_sam.py`).
    """
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.encoder_embed_dim,
            depth=config.encoder_depth,
            num_heads=config.encoder_num_heads,
            mlp_ratio=4,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=config.encoder_global_attn_indexes,
            window_size=config.window_size,
            out_chans=config.prompt_embed_dim,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=config.prompt_embed_dim,
            image_embedding_size=(config.grid_size, config.grid_size),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=config.prompt_embed_dim,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_embed_dim,
                mlp_dim=config.decoder_mlp_dim,
                num_heads=config.decoder_num_heads,
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
        pixel_mean=list(PIXEL_MEAN_RGB),
        pixel_std=list(PIXEL_STD_RGB),
    )
    return sam.eval()


def save_sam(sam: Sam, config: SamConfig, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is made if missing.

    The tensors keep their dtype: call `sam.half()` before for a file of half the size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": MODEL_TYPE, **asdict(config)}
    (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sam.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_sam(source: Path) -> Sam:
    """A `Sam` on the CPU, in the file's dtype and in evaluation mode.

    Args:
        source: An official `.pth` or the same tensors as `.safetensors`, told apart into ViT-B, L and H by their names
            and shapes; or a folder that `save_sam` wrote.

    Raises:
        WeightsError: If the source is missing or damaged, holds anything but tensors, is of an unknown size, or its
            tensors aren't exactly the model's.
    """
    is_folder = os.path.isdir(source)
    path = source / WEIGHTS_FILE if is_folder else source
    if not os.path.isfile(path):
        raise WeightsError(
            f"{path} is missing or forbidden: give a Segment Anything file, or a folder that holds {WEIGHTS_FILE}."
        )
    tensors = read_tensor_file(path)
    config = _read_config(source / CONFIG_FILE) if is_folder else _recognise(tensors, source)
    # On the meta device nothing is allocated or initialised; the file's tensors become the parameters themselves.
    with torch.device("meta"):
        sam = build_sam(config)
    problems = misfits(tensors, sam.state_dict())
    if problems:
        raise WeightsError(f"{source} doesn't fit Segment Anything. Tensors {'; '.join(problems)}")
    sam.load_state_dict(tensors, strict=True, assign=True)
    return sam


def _recognise(tensors: Mapping[str, torch.Tensor], source: Path) -> SamConfig:
    """The sizes of ViT-B, L or H, told apart by the width of the patch embedding."""
    patches = tensors.get("image_encoder.patch_embed.proj.weight")
    if patches is None:
        raise WeightsError(
            f"{source} is not a Segment Anything model: it has no image_encoder.patch_embed.proj.weight. "
            "Give a sam_vit_b, sam_vit_l or sam_vit_h file."
        )
    published = {
        config.encoder_embed_dim: config for config in (SamConfig.vit_b(), SamConfig.vit_l(), SamConfig.vit_h())
    }
    config = published.get(patches.shape[0])
    if config is None:
        raise WeightsError(
            f"{source} has an image encoder of width {patches.shape[0]}, which is none of ViT-B, L and H "
            f"({', '.join(map(str, published))}). A model of another size is given as a folder with {CONFIG_FILE}."
        )
    return config


def _read_config(path: Path) -> SamConfig:
    """The sizes that `save_sam` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} is missing: a segmenter's folder holds {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read: {error}. Fetch or copy the segmenter again.") from error
    model_type = content.pop("model_type", None) if isinstance(content, dict) else None
    if model_type != MODEL_TYPE:
        raise WeightsError(f"{path} is for model_type {model_type!r}; here only {MODEL_TYPE!r} can be loaded.")
    names = {item.name for item in fields(SamConfig)}
    if content.keys() != names:
        difference = ", ".join(sorted(content.keys() ^ names))
        raise WeightsError(f"{path} doesn't describe a Segment Anything model; missing or unknown: {difference}.")
    try:
        return SamConfig(**{**content, "encoder_global_attn_indexes": tuple(content["encoder_global_attn_indexes"])})
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path} doesn't describe a Segment Anything model: {error}.") from error
