"""Florence-2 at its published sizes with random weights, for benchmarks: as large and as slow as the real one.

Its weights are drawn so that the best token stands clear of the second best, that location tokens lead, and that an
answer never ends by itself: so answers hold boxes, have the length asked for, and two exact ways find the same.
"""

from pathlib import Path

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from grounded_seg.detect.decoding.weight_order import put_in_order
from grounded_seg.detect.model.florence import AnswerRules, FlorenceModel
from grounded_seg.detect.model.load import GENERATION_DEFAULTS
from grounded_seg.detect.model.pixels import PixelSettings
from grounded_seg.detect.model.tower import use_kernels, use_one_layout
from grounded_seg.detect.model.vocabulary import Vocabulary, load_tokenizer
from grounded_seg.device.choose import compile_encoder
from grounded_seg.device.kernels import kernels_of

SIZES = {
    "tiny": {"widths": (16, 32, 32, 64), "heads": (1, 2, 2, 4), "depth": 1, "width": 64, "layers": 2, "text_heads": 4},
    "base": {
        "widths": (128, 256, 512, 1024),
        "heads": (4, 8, 16, 32),
        "depth": 9,
        "width": 768,
        "layers": 6,
        "text_heads": 12,
    },
    "large": {
        "widths": (256, 512, 1024, 2048),
        "heads": (8, 16, 32, 64),
        "depth": 9,
        "width": 1024,
        "layers": 12,
        "text_heads": 16,
    },
}
"""base and large as published; tiny to try a benchmark out."""
_LOCATION_NORM = 3.0
"""Length of a location's row among the words, whose own is about 1.5."""
TFLOP = {"tiny": (0.004, 0.001), "base": (0.38, 0.06), "large": (1.49, 0.20)}
"""Arithmetic of one image and one question: the vision tower's, the text encoder's."""


def config(size: str, vocabulary: Vocabulary) -> Florence2Config:
    """Give the published configuration of a size."""
    shape = SIZES[size]
    width, layers, heads = shape["width"], shape["layers"], shape["text_heads"]
    return Florence2Config(
        vision_config={
            "embed_dim": shape["widths"],
            "num_heads": shape["heads"],
            "num_groups": shape["heads"],
            "depths": (1, 1, shape["depth"], 1),
            "projection_dim": width,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": max(vocabulary.location_ids) + 20,
            "d_model": width,
            "encoder_layers": layers,
            "decoder_layers": layers,
            "encoder_attention_heads": heads,
            "decoder_attention_heads": heads,
            "encoder_ffn_dim": 4 * width,
            "decoder_ffn_dim": 4 * width,
            "max_position_embeddings": 1024,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        # It stands for the places of the image in transformers' own chain.
        image_token_id=vocabulary.encode("<mask>")[1],
    )


@torch.no_grad()
def full_size_model(size: str, tokenizer: Path, seed: int = 0) -> FlorenceModel:
    """Make a model in float32 on the CPU.

    Args:
        size: A key of `SIZES`.
        tokenizer: Folder of Florence-2's `tokenizer.json`.
        seed: Of the weights.
    """
    vocabulary = Vocabulary(load_tokenizer(tokenizer))
    network = Florence2ForConditionalGeneration(config(size, vocabulary)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            scale = 4.0 if "embed_positions" in name else 1.5 * parameter[0].numel() ** -0.5
            # What comes from the image is the same at each step, and what was said nearly so: too much of them, and
            # each step says the same location, which makes no box.
            if "decoder" in name and "attn.out_proj" in name:
                scale *= 0.25 if "encoder_attn" in name else 0.2
            parameter.normal_(0.0, scale, generator=generator)
    words = network.get_input_embeddings().weight
    # All of one length, or the longest of them would be said over and over: no box of it would have an area.
    locations = list(vocabulary.location_ids)
    words[locations] = _LOCATION_NORM * torch.nn.functional.normalize(words[locations], dim=1)
    words[vocabulary.eos_id] = 0.0
    # As published; `FlorenceModel` asks with rules of its own.
    network.generation_config = GenerationConfig(**GENERATION_DEFAULTS)
    rules = AnswerRules(start_id=2, forced_first_id=0, forced_last_id=2, stop_beams_early=True, length_penalty=1.0)
    return FlorenceModel(network, vocabulary, PixelSettings(), rules)


def as_loaded(model: FlorenceModel, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> None:
    """Bring a model to where it runs, in the layout and with the kernels that a loaded one has."""
    tower = model.network.model.vision_tower
    use_one_layout(tower)
    model.to(device, dtype)
    put_in_order(model.network)
    use_kernels(tower, kernels_of(None, device, dtype, compiled=compiled))
    if compiled:
        compile_encoder(tower)
