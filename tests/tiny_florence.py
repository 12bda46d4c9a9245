"""A native Florence-2 that runs in milliseconds, with random but fixed weights, its tokenizer and its processor.

Its weights are larger than a fresh model's, so that the best token stands well clear of the second best, and two runs
that differ in their last bits still choose the same.
"""

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BartTokenizer,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)

from grounded_seg.records import Image

SIDE = 96
N_IMAGE_TOKENS = 10
"""A grid of 3 x 3 and the mean over it."""
WIDTH = 32
MAX_POSITIONS = 128
TARGETS = ["q_proj", "v_proj", "fc1", "qkv", "conv", "image_projection"]
"""Of text model and vision tower; `conv` is the patch embeddings, which are convolutions."""

MARKS = "od ocr cap ncap dcap grounding seg region_cap region_to_desciption proposal poly"  # the missing r is theirs
SPECIAL_TOKENS = (
    *("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    *(f"<{slash}{mark}>" for mark in MARKS.split() for slash in ("", "/")),
    *("<sep>", "<and>", "<image>"),
    *(f"<loc_{index}>" for index in range(1000)),
)


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE that knows one merge ("ca"): every other letter is a token, and every other script several."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS[:4], *alphabet, "ca"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("c", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def make_network(seed: int = 0) -> Florence2ForConditionalGeneration:
    tokenizer = make_tokenizer()
    config = Florence2Config(
        vision_config={
            "embed_dim": (8, 16, 16, 32),
            "num_heads": (1, 2, 2, 4),
            "num_groups": (1, 2, 2, 4),
            "depths": (1, 1, 1, 1),
            "window_size": 4,
            "projection_dim": WIDTH,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            # More rows than tokens, as in the published models.
            "vocab_size": (tokenizer.get_vocab_size() // 64 + 1) * 64,
            "max_position_embeddings": MAX_POSITIONS,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": 2,
        },
        image_token_id=tokenizer.token_to_id("<image>"),
    )
    network = Florence2ForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 1:
                # Positions that weigh more than words make an answer that goes on to something new.
                scale = 2.0 if "embed_positions" in name else 1.5 * parameter[0].numel() ** -0.5
                parameter.normal_(0.0, scale, generator=generator)
    # As published: three beams, a forced <s>, and no three tokens twice.
    network.generation_config = GenerationConfig(
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
        num_beams=3,
        early_stopping=True,
        no_repeat_ngram_size=3,
    )
    return network


def make_processor() -> Florence2Processor:
    tokenizer = BartTokenizer(tokenizer_object=make_tokenizer())
    tokenizer.image_token, tokenizer.image_token_id = "<image>", tokenizer.convert_tokens_to_ids("<image>")
    image_processor = CLIPImageProcessor(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=N_IMAGE_TOKENS,
    )
    return Florence2Processor(image_processor=image_processor, tokenizer=tokenizer, post_processor_config={})


def save_tiny_florence(folder: Path, seed: int = 0) -> Path:
    """Write the model as `save_pretrained` does."""
    make_network(seed).save_pretrained(folder)
    make_processor().save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def make_image(seed: int, width: int = 120, height: int = 80) -> Image:
    """Smooth random colours: an image, not noise, so that resizing has something to keep."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return Image(path=Path(f"{seed}.png"), pixels=coarse[rows][:, columns])


@torch.inference_mode()
def logits(network: torch.nn.Module) -> torch.Tensor:
    """What a network makes of one fixed question and the begin of an answer."""
    torch.manual_seed(2)
    ids = torch.tensor([[*[network.config.image_token_id] * 10, 0, 40, 41, 42, 2]])
    pixels = torch.randn(1, 3, SIDE, SIDE)
    decoder_ids = torch.tensor([[2, 0, 50, 51, 400, 500]])
    result: torch.Tensor = network(input_ids=ids, pixel_values=pixels, decoder_input_ids=decoder_ids).logits
    return result


def save_adapter(folder: Path, config: PeftConfig | None = None, *, zero: bool = False) -> Path:
    torch.manual_seed(1)
    # Weak, as a trained one is: these random layers amplify what it adds.
    lora = LoraConfig(r=4, lora_alpha=1, target_modules=TARGETS, init_lora_weights=zero)
    get_peft_model(make_network(), config or lora).save_pretrained(folder)
    return folder
