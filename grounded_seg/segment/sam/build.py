"""segment-anything's models at any size, from the published ViT-H down to a few megabytes: built, loaded and saved.

The modules are segment-anything's own; weights are stored as an official `.pth`, as the same tensors in a
`.safetensors`, or as a folder with `config.json` beside `model.safetensors`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from grounded_seg.errors import WeightsError
from grounded_seg.segment.sam.modules import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from grounded_seg.text.printable import safe_text
from grounded_seg.weights.config_records import Layers, Side, Small, Width, config_in, record_of
from grounded_seg.weights.strict_loading import misfits, read_tensor_file

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "segment-anything"
"""Marks our `config.json` as one for segment-anything's modules, beside the layouts of other libraries."""


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """The sizes of one `Sam`; where all published ones agree, theirs is the default.

    Raises:
        ValueError: If the sizes don't fit together.
    """

    image_size: Side = 1024
    """Side of the square that the encoder sees, in pixels."""
    patch_size: Small = 16
    """Side of one patch, in pixels."""
    encoder_embed_dim: Width
    encoder_depth: Layers
    encoder_num_heads: Width
    encoder_global_attn_indexes: tuple[Layers, ...]
    """Blocks that attend over the whole image, counted from 0; the others attend within windows."""
    window_size: Small = 14
    """Side of an attention window, in patches; 0 makes every block global."""
    prompt_embed_dim: Width = 256
    """Channels of the image embedding, the prompts and the decoder (`out_chans` of the encoder)."""
    decoder_depth: Layers = 2
    decoder_mlp_dim: Width = 2048
    decoder_num_heads: Width = 8
    iou_head_hidden_dim: Width = 256

    def __post_init__(self) -> None:
        """Refuse sizes that the modules would only fail on later."""
        # The decoder's attention halves its width before splitting it into heads.
        divisions = (
            ("image_size", self.image_size, "patch_size", self.patch_size),
            ("encoder_embed_dim", self.encoder_embed_dim, "encoder_num_heads", self.encoder_num_heads),
            ("prompt_embed_dim", self.prompt_embed_dim, "2 * decoder_num_heads", 2 * self.decoder_num_heads),
            ("prompt_embed_dim", self.prompt_embed_dim, "the mask upscaling", 8),
        )
        for name, value, divisor_name, divisor in divisions:
            if value <= 0 or divisor <= 0 or value % divisor:
                raise ValueError(f"{name} is {value}, it must be a multiple of {divisor_name} ({divisor})")
        if any(not 0 <= index < self.encoder_depth for index in self.encoder_global_attn_indexes):
            raise ValueError(f"encoder_global_attn_indexes leave the {self.encoder_depth} blocks of the encoder")

    @classmethod
    def vit_b(cls) -> "SamConfig":
        """The published ViT-B: 94 M parameters."""
        blocks = (2, 5, 8, 11)
        return cls(encoder_embed_dim=768, encoder_depth=12, encoder_num_heads=12, encoder_global_attn_indexes=blocks)

    @classmethod
    def vit_l(cls) -> "SamConfig":
        """The published ViT-L: 312 M parameters."""
        blocks = (5, 11, 17, 23)
        return cls(encoder_embed_dim=1024, encoder_depth=24, encoder_num_heads=16, encoder_global_attn_indexes=blocks)

    @classmethod
    def vit_h(cls) -> "SamConfig":
        """The published ViT-H: 641 M parameters."""
        blocks = (7, 15, 23, 31)
        return cls(encoder_embed_dim=1280, encoder_depth=32, encoder_num_heads=16, encoder_global_attn_indexes=blocks)


def build_sam(config: SamConfig) -> Sam:
    """segment-anything's modules at the sizes of `config`, with fresh weights, in evaluation mode."""
    grid_size = config.image_size // config.patch_size
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
            image_embedding_size=(grid_size, grid_size),
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
        # Red, green, blue, of ImageNet.
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    return sam.eval()


def save_sam(sam: Sam, config: SamConfig, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, which is made if missing; tensors keep their dtype."""
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
        WeightsError: If it is missing, damaged, of an unknown size, or its tensors aren't exactly the model's.
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
    published = {one.encoder_embed_dim: one for one in (SamConfig.vit_b(), SamConfig.vit_l(), SamConfig.vit_h())}
    if patches.shape[0] not in published:
        raise WeightsError(
            f"{source} has an image encoder of width {patches.shape[0]}, which is none of ViT-B, L and H "
            f"({', '.join(map(str, published))}). A model of another size is given as a folder with {CONFIG_FILE}."
        )
    return published[patches.shape[0]]


def _read_config(path: Path) -> SamConfig:
    """The sizes that `save_sam` wrote."""
    try:
        content = config_in(path)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} is missing: a segmenter's folder holds {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read: {error}. Fetch or copy the segmenter again.") from error
    model_type = content.pop("model_type", None)
    if model_type != MODEL_TYPE:
        shown = safe_text(repr(model_type), most=60)
        raise WeightsError(f"{path} is for model_type {shown}; here only {MODEL_TYPE!r} can be loaded.")
    names = {item.name for item in fields(SamConfig)}
    if content.keys() != names:
        difference = safe_text(", ".join(sorted(content.keys() ^ names)), most=300)
        raise WeightsError(f"{path} doesn't describe a Segment Anything model; missing or unknown: {difference}.")
    try:
        return record_of(SamConfig, content)
    except ValueError as error:
        raise WeightsError(f"{path} doesn't describe a Segment Anything model: {error}.") from error
