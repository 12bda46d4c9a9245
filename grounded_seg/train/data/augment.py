"""Random changes to training images that leave their answers right."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from grounded_seg.records import Image
from grounded_seg.train.data.questions import class_question, positive_questions
from grounded_seg.train.data.records import BoxExample, Question
from grounded_seg.train.settings import PromptForm

_WORD = re.compile(r"[^\W\d_]+")
_SIDE_WORDS = frozenset(
    _WORD.findall("left right leftmost rightmost clockwise counterclockwise anticlockwise mirrored")
)
_COLOUR_WORDS = frozenset(
    _WORD.findall(
        "red orange yellow green blue purple violet pink brown black white gray grey beige cyan magenta turquoise gold "
        "golden silver bronze copper teal navy maroon crimson scarlet amber ivory lilac lime olive tan blond blonde "
        "ripe unripe dark bright pale coloured colored colourful colorful"
    )
)
_WITHIN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where `leftShoe` and `RGBRed` fall into words."""
_FLIP_SHARE = 0.5
_COLOUR_REACH = 0.2
"""How far brightness, contrast and saturation go up or down."""
_HUE_REACH = 0.02
"""As a share of the colour circle."""


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made to images with boxes; images with texts stay as they are."""

    flips: bool
    """Half of the images, and their boxes."""
    colours: bool

    def apply(self, image: Image, question: Question, rng: np.random.Generator) -> tuple[Image, Question]:
        """Change an image, of any size, and the question's answer with it; every question takes as many draws."""
        flip, changes, hue = rng.random() < _FLIP_SHARE, rng.uniform(-1, 1, 3), float(rng.uniform(-1, 1))
        if not isinstance(question.example, BoxExample):
            return image, question
        pixels = torch.tensor(image.pixels).permute(2, 0, 1)
        if self.flips and flip:
            pixels, question = functional.horizontal_flip(pixels), _mirrored(question, question.example)
        if self.colours:
            brightness, contrast, saturation = (1 + _COLOUR_REACH * changes).tolist()
            pixels = functional.adjust_brightness(pixels, brightness)
            pixels = functional.adjust_contrast(pixels, contrast)
            pixels = functional.adjust_saturation(pixels, saturation)
            pixels = functional.adjust_hue(pixels, _HUE_REACH * hue)
        return replace(image, pixels=pixels.permute(1, 2, 0).contiguous().numpy()), question


def augmentation_for(classes: Iterable[str]) -> Augmentation:
    """Choose the changes that no class depends on, going by its words: "left shoe", "ripe_tomato", "redCar"."""
    words = {word.casefold() for name in classes for word in _WORD.findall(_WITHIN_WORDS.sub(" ", name))}
    return Augmentation(flips=not words & _SIDE_WORDS, colours=not words & _COLOUR_WORDS)


def _mirrored(question: Question, example: BoxExample) -> Question:
    width = example.size.width
    boxes = tuple(
        replace(box, box_xyxy=(width - x1, y0, width - x0, y1))
        for box in example.boxes
        for x0, y0, x1, y1 in [box.box_xyxy]
    )
    mirrored = replace(example, boxes=boxes)
    prompt = question.prompt
    return class_question(mirrored, prompt) if prompt else positive_questions(mirrored, PromptForm.OD)[0]
