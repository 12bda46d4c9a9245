"""The demo's tokenizer: a byte-level BPE with Florence-2's special tokens, so any UTF-8 text goes in and comes out."""

from itertools import product
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPImageProcessor, Florence2Processor, PreTrainedTokenizerFast

from grounded_seg.scenes import COLOURS, KINDS
from grounded_seg.scenes.words import TRAINING_WORDS

N_MERGES = 1500
N_BINS = 1000
START = ["<s>", "<pad>", "</s>", "<unk>"]
TASK_TOKENS = (
    [f"<{slash}{name}>" for name in ("cap", "ncap", "dcap", "grounding", "seg") for slash in ("", "/")]
    + ["<sep>"]
    + [f"<{slash}{name}>" for name in ("region_cap", "region_to_desciption", "proposal", "poly") for slash in ("", "/")]
    + ["<and>"]
)
"""In Florence-2's order and spelling (the typing error is its own)."""
PROMPTS = """
What is the text in the image? What is the text in the image, with regions? What does the image describe?
Describe in detail what is shown in the image. Describe with a paragraph what is shown in the image.
Locate the objects with category name in the image. Locate the objects in the image, with their descriptions.
Locate the region proposals in the image. Locate the phrases in the caption: Locate a thing in the image with mask
What is the polygon mask of region Locate a thing in the image. What is the region ? What does the region describe?
What text is in the region ?
""".strip().splitlines()


def corpus() -> list[str]:
    """Texts whose frequent pieces become tokens: what the demo is asked and what it answers, then single words.

    Held-out words stay out: they have to be asked in pieces, as a user's own words are.
    """
    phrases = [*KINDS, "object", *(f"{c} {k}" for c, k in product(COLOURS, [*KINDS, "object"]))]
    asked = [f"Locate the phrases in the caption: {p}" for p in phrases] + [
        f"Locate {p} in the image." for p in phrases
    ]
    words = [f"a {word}, the {word}s, {word}" for word in TRAINING_WORDS]
    return (PROMPTS + asked + phrases) * 20 + words


def train_tokenizer() -> Tokenizer:
    """Learn the merges, then append Florence-2's task and location tokens in its own order and the image token last."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(START) + len(alphabet) + N_MERGES,
        special_tokens=START,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    locations = [f"<loc_{i}>" for i in range(N_BINS)]
    added = ["<mask>", "<od>", "</od>", "<ocr>", "</ocr>", *locations, *TASK_TOKENS, "<image>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    return tokenizer


def build_processor(side: int, n_image_tokens: int) -> Florence2Processor:
    """A whole native processor: this tokenizer, and an image processor that squeezes to `side` pixels."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(),
        bos_token="<s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        cls_token="<s>",  # noqa: S106
        sep_token="</s>",  # noqa: S106
        mask_token="<mask>",  # noqa: S106
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )
    images = CLIPImageProcessor(
        size={"height": side, "width": side},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=n_image_tokens,
    )
    images.image_seq_length = n_image_tokens
    return Florence2Processor(image_processor=images, tokenizer=tokenizer)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer alone, from a native folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
