"""The demo's tokenizer: a byte-level BPE with Florence-2's special tokens, so any UTF-8 text goes in and comes out."""

from itertools import product
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPImageProcessor, Florence2Processor, PreTrainedTokenizerFast

from grounded_seg.scenes import COLOURS, KINDS
from grounded_seg.scenes.questions import HELD_OUT_WORDS, TRAINING_WORDS

N_MERGES = 1500
N_BINS = 1000
MAX_PROMPT_TOKENS = 127
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


ORDINARY_WORDS = """
above across after again against almost along already although always among another anything around asleep away awake
baby back beautiful because before begin behind below beneath beside between beyond big black blurred both bottom bright
broken brown building busy calm careful carrying centre ceiling chasing clean clear climbing closed cloudy cold coloured
corner covered crossing crowded curved dancing dark deep different dirty distance double driving drinking dry during
early eating edge eight empty enough evening every everything falling far fast feeding field filled first five flat
floor floating flying four fresh front full glowing golden grass grey ground growing half hanging hard heavy hidden high
holding huge indoor inside jumping kitchen landing large last laughing leaning left leather left-hand light little long
looking lower lying marble market material metal middle missing morning moving narrow near nearby neighbour never next
night nobody north object often open opposite orange other outdoor outside over painted parked parking part pattern
people picture piece pink plastic playing pointing pouring purple pulling pushing quick quiet raised reading red resting
riding right right-hand rough round row running sand second several shadow shallow sharp shiny short side silver single
sitting sky sleeping slow small smiling smooth snow soft solid something south square standing steel still stone
straight street striped strong surface swimming tall ten thick thin third three throwing through tiny together top
toward toward transparent turning two under upper upside using very vehicle walking wall warm waiting washing water
wearing weather wet white whole wide wild wind winter with without wooden working writing yellow young zero
animal article background blossom brand camera-shy cardboard ceramic clothing container costume cotton cushion
decoration display drawing equipment fabric furniture gadget garden handle instrument jewellery label lantern liquid
machine neighbourhood ornament package paper poster product rubber scenery shelf shadowy silhouette statue structure
symbol texture tool toy traffic transport vegetable vessel
""".split()  # noqa: SIM905
"""Plain words of descriptions: colours, places, sizes, materials, what things do and where they are."""


def corpus() -> list[str]:
    """Texts whose frequent pieces become tokens: what the demo is asked and what it answers, then single words.

    Held-out words stay out: they have to be asked in pieces, as a user's own words are.
    """
    phrases = [*KINDS, "object", *(f"{c} {k}" for c, k in product(COLOURS, [*KINDS, "object"]))]
    asked = [f"Locate the phrases in the caption: {p}" for p in phrases] + [
        f"Locate {p} in the image." for p in phrases
    ]
    words = [f"a {word}, the {word}s, {word}" for word in TRAINING_WORDS]
    plain = [f"the {word} one, {word}" for word in ORDINARY_WORDS if word not in HELD_OUT_WORDS]
    return (PROMPTS + asked + phrases) * 20 + words + plain


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
        model_max_length=n_image_tokens + MAX_PROMPT_TOKENS,
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
