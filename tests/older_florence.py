"""The tiny Florence-2 of `tiny_florence`, written as the first implementation stores it, and its reference outputs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_florence import SIDE, make_network, make_tokenizer
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.load import GENERATION_DEFAULTS

# Written down from the first implementation's module tree, apart from the table under test.
_NATIVE_TO_OLDER = (
    (r"model\.vision_tower\.convs\.(\d)\.conv\.", r"vision_tower.convs.\1.proj."),
    (r"model\.vision_tower\.(.*)\.(conv[12])\.", r"vision_tower.\1.\2.fn.dw."),
    (r"model\.vision_tower\.(.*)\.spatial_block\.norm1\.", r"vision_tower.\1.spatial_block.window_attn.norm."),
    (r"model\.vision_tower\.(.*)\.channel_block\.norm1\.", r"vision_tower.\1.channel_block.channel_attn.norm."),
    (r"model\.vision_tower\.(.*)\.norm2\.", r"vision_tower.\1.ffn.norm."),
    (r"model\.vision_tower\.(.*_attn)\.", r"vision_tower.\1.fn."),
    (r"model\.vision_tower\.(.*\.ffn)\.", r"vision_tower.\1.fn.net."),
    (r"model\.vision_tower\.", "vision_tower."),
    (r"model\.multi_modal_projector\.image_projection\.weight", "image_projection"),
    (r"model\.multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"model\.multi_modal_projector\.", ""),
    (r"model\.language_model\.", "language_model.model."),
    (r"lm_head\.", "language_model.lm_head."),
)


def older_name(native: str) -> str:
    """The first implementation's name of a native tensor or module (given with a trailing dot)."""
    for pattern, older in _NATIVE_TO_OLDER:
        renamed, n_matches = re.subn(f"^{pattern}", older, native)
        if n_matches:
            return renamed
    return native


def older_config(network: Florence2ForConditionalGeneration) -> dict[str, object]:
    vision, text = network.config.vision_config.to_dict(), network.config.text_config.to_dict()
    return {
        "model_type": "florence2",
        "auto_map": {"AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration"},
        "projection_dim": vision["projection_dim"],
        # What equals the first implementation's defaults is left out, as its `save_pretrained` does.
        "vision_config": {
            "model_type": "davit",
            "dim_embed": vision["embed_dim"],
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": vision["max_position_embeddings"]},
            "visual_temporal_embedding": {
                "type": "COSINE",
                "max_temporal_embeddings": vision["max_temporal_embeddings"],
            },
            **{name: vision[name] for name in ("num_heads", "num_groups", "depths", "window_size", "drop_path_rate")},
            "projection_dim": vision["projection_dim"],
        },
        "text_config": {
            "model_type": "florence2_language",
            "early_stopping": True,
            "num_beams": 3,
            **{
                name: text[name]
                for name in (
                    *("d_model", "vocab_size", "max_position_embeddings", "encoder_layers", "decoder_layers"),
                    *("encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim"),
                )
            },
        },
    }


def older_folder(folder: Path, seed: int = 0) -> Path:
    """Write the tiny model in the older layout; the tied matrix is there under all of its names."""
    network = make_network(seed)
    tensors = {older_name(name): tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["image_projection"] = tensors["image_projection"].t().contiguous()
    tensors["language_model.final_logits_bias"] = torch.zeros(1, network.config.text_config.vocab_size)
    save_file(tensors, folder / "model.safetensors")
    image = {"size": {"height": SIDE, "width": SIDE}, "resample": 3, "crop_size": {"height": SIDE, "width": SIDE}}
    for name, content in (
        ("config.json", older_config(network)),
        ("generation_config.json", dict(GENERATION_DEFAULTS)),
        ("preprocessor_config.json", image),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@torch.inference_mode()
def outputs(
    network: torch.nn.Module, given: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, logits of the tokens 50265 to 51288 and loss, for the inputs of `expected.safetensors`."""
    network.eval()
    features = network.get_image_features(given["pixel_values"]).pooler_output
    answer = network(
        inputs_embeds=torch.cat([features, network.get_input_embeddings()(given["input_ids"])], dim=1),
        decoder_input_ids=given["decoder_input_ids"],
        labels=given["labels"],
    )
    return features, answer.logits[..., 50265:51289], answer.loss
