"""The demo's detector before training: a small native Florence-2 from its config."""

import json
import math
from pathlib import Path

import torch
from tokenizer import MAX_PROMPT_TOKENS
from tokenizers import Tokenizer
from torch import nn
from transformers import Florence2Config, Florence2ForConditionalGeneration

WIDTH = 192
GRID = 16
"""The image's tokens are one for the whole and GRID x GRID for its parts."""

PLACE_SIZE = 2.0
"""How large the codes of rows and columns start out. The usual 0.02 drowns in what is seen: places stay unlearned."""
LOCATION_SIZE = 2.0
"""The norm of a location's embedding at the start; in smaller ones noise soon hides that neighbours are alike."""
BART_OFFSET = 2
"""The row of BART's table of positions that stands for the first one."""
POINTING_LAYER, N_POINTING_HEADS = 1, 3
"""The decoder's heads that training shows where to look."""


def build_detector(tokenizer: Tokenizer) -> Florence2ForConditionalGeneration:
    """A random model whose codes of locations, rows and columns start out smooth, so that neighbours are alike."""
    ids = {name: tokenizer.token_to_id(f"<{name}>") for name in ("s", "pad", "/s", "image", "loc_0", "loc_999")}
    vision = {
        "embed_dim": (64, 128, 192, 192),
        "num_heads": (2, 4, 6, 6),
        "num_groups": (2, 4, 6, 6),
        "depths": (1, 1, 1, 1),
        "patch_size": (9, 3, 3, 3),
        "patch_stride": (8, 2, 1, 1),
        "patch_padding": (4, 1, 1, 1),
        "window_size": GRID,
        "projection_dim": WIDTH,
        "drop_path_rate": 0.0,
    }
    text = {
        "model_type": "bart",
        "d_model": WIDTH,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 6,
        "decoder_attention_heads": 6,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 1 + GRID * GRID + MAX_PROMPT_TOKENS,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "bos_token_id": ids["s"],
        "pad_token_id": ids["pad"],
        "eos_token_id": ids["/s"],
        "decoder_start_token_id": ids["/s"],
        "forced_eos_token_id": ids["/s"],
    }
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=ids["image"])
    config.space_before_labels = True  # what `train` has to know of this model
    model = Florence2ForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # the only one that tells where it looks
    with torch.no_grad():
        locations = smooth_codes(1000, WIDTH, cycles=(0.5, 60), damped_from=8)
        locations = locations / locations.norm(dim=1, keepdim=True) * LOCATION_SIZE
        model.get_input_embeddings().weight[ids["loc_0"] : ids["loc_999"] + 1] = locations
        place = model.model.multi_modal_projector.image_position_embed
        for table in (place.row_embeddings.weight, place.column_embeddings.weight):
            table[:GRID] = PLACE_SIZE * smooth_codes(GRID, table.shape[1], cycles=(0.25, GRID / 2), damped_from=GRID)
    return model


def smooth_codes(n: int, width: int, cycles: tuple[float, float], damped_from: float) -> torch.Tensor:
    """(n, width) sines, then cosines, of frequencies from `cycles[0]` to `cycles[1]` over n, high ones smaller."""
    frequency = torch.exp(torch.linspace(math.log(cycles[0]), math.log(cycles[1]), width // 2))
    angle = 2 * math.pi * (torch.arange(n) / n)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1) / (1 + frequency.repeat(2) / damped_from)


def stretched_weights(folder: Path, model: Florence2ForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The weights of an earlier detector for one that looks at GRID x GRID parts: codes of places are interpolated."""
    earlier = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    n_before = math.isqrt(processor["image_seq_length"] - 1)
    state, own = earlier.state_dict(), model.state_dict()
    for name in state:
        if name.endswith(("row_embeddings.weight", "column_embeddings.weight")):
            codes = state[name][:n_before].T[None]
            stretched = nn.functional.interpolate(codes, size=GRID, mode="linear", align_corners=False)[0].T
            state[name] = torch.cat([stretched, state[name][GRID:]])
        elif name.endswith("embed_positions.weight"):
            state[name] = stretched_positions(state[name], own[name], n_before if ".encoder." in name else 0)
    return state


def stretched_positions(codes: torch.Tensor, fresh: torch.Tensor, n_before: int) -> torch.Tensor:
    """Codes of positions for a longer sequence: (positions, width) like `fresh`, which also gives those missing.

    With `n_before`, the sequence begins with one token for the image and n_before x n_before for its parts.
    """
    first = BART_OFFSET + 1
    if n_before:
        parts = codes[first : first + n_before**2].unflatten(0, (n_before, n_before)).permute(2, 0, 1)[None]
        parts = nn.functional.interpolate(parts, size=(GRID, GRID), mode="bilinear", align_corners=False)[0]
        codes = torch.cat([codes[:first], parts.flatten(1).T, codes[first + n_before**2 :]])
    return torch.cat([codes, fresh[len(codes) :]])[: len(fresh)]


def forward_language(
    model: Florence2ForConditionalGeneration,
    image_tokens: torch.Tensor,
    prompt_ids: torch.Tensor,
    prompt_mask: torch.Tensor,
    labels: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Answers' logits (b, t, vocabulary), the encoder's image tokens (b, n, width), and where the decoder looks.

    The last is the attention that each step pays to each image token in the middle layer's first heads, (b, t, n).

    Args:
        model: The detector.
        image_tokens: (b, n, width), one row per question.
        prompt_ids: (b, p) padded token ids of the questions.
        prompt_mask: (b, p), 1 for a real token.
        labels: (b, t) answers, -100 where padded.
    """
    n_image_tokens = image_tokens.shape[1]
    embedded = torch.cat([image_tokens, model.get_input_embeddings()(prompt_ids)], 1)
    mask = torch.cat([torch.ones(image_tokens.shape[:2], dtype=torch.long), prompt_mask], 1)
    encoded = model.model.language_model.encoder(inputs_embeds=embedded, attention_mask=mask)
    out = model(
        encoder_outputs=encoded, inputs_embeds=embedded, attention_mask=mask, labels=labels, output_attentions=True
    )
    looked = out.cross_attentions[POINTING_LAYER][:, :N_POINTING_HEADS, :, :n_image_tokens].mean(1)
    return out.logits, encoded.last_hidden_state[:, :n_image_tokens], looked
