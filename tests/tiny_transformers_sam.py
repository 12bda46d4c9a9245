"""Tiny SAM, SAM-HQ and SAM 2 of transformers, of random weights, with their processors."""

from typing import Any

import torch
import transformers

PROMPTS = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4}
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
ENCODER = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 128,
    "patch_size": 16,
    "window_size": 3,
    "global_attn_indexes": [1, 2],
    "num_pos_feats": 16,
    "mlp_dim": 64,
}
HIERA = {
    "hidden_size": 12,
    "image_size": [128, 128],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [12, 24, 48, 96],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 4, 4],
    "global_attention_blocks": [3],
    "window_positional_embedding_background_size": [7, 7],
}
SAM2_ENCODER = {
    "backbone_config": {"model_type": "sam2_hiera_det_model", **HIERA},
    "backbone_channel_list": [96, 48, 24, 12],
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 32,
}

TRACKER = {
    "image_size": 128,
    "memory_attention_hidden_size": 32,
    "memory_attention_num_layers": 1,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [8, 8],
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "mask_downsampler_embed_dim": 32,
    "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32,
}


def build(name: str) -> Any:
    """A tiny model of random weights, in which every parameter matters."""
    parts: dict[str, Any] = {"vision_config": ENCODER, "prompt_encoder_config": PROMPTS, "mask_decoder_config": DECODER}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(4)
        if name == "sam":
            model = transformers.SamModel(transformers.SamConfig(**parts))
        elif name == "sam_hq":
            parts["mask_decoder_config"] = {**DECODER, "vit_dim": 32}
            model = transformers.SamHQModel(transformers.SamHQConfig(**parts))
        elif name == "sam2":
            parts["vision_config"] = SAM2_ENCODER
            model = transformers.Sam2Model(transformers.Sam2Config(**parts))
        else:
            # As SAM 2 is published: with the tracker beside it.
            model = transformers.Sam2VideoModel(
                transformers.Sam2VideoConfig(**{**parts, "vision_config": SAM2_ENCODER}, **TRACKER)
            )
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape)
    return model.eval()


def processor_of(name: str) -> Any:
    square = {"height": 128, "width": 128}
    if name.startswith("sam2"):
        return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=square))
    images = transformers.SamImageProcessor(size={"longest_edge": 128}, pad_size=square)
    return (transformers.SamProcessor if name == "sam" else transformers.SamHQProcessor)(images)
