"""From questions to the tensors of a batch: images, changed at random, token ids, labels; and what is too long."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.pixels import PixelSettings, pixel_values, resized_to_square
from grounded_seg.detect.model.vocabulary import Vocabulary
from grounded_seg.errors import InputError
from grounded_seg.images.read import read_image
from grounded_seg.records import Image
from grounded_seg.settings import MAX_PIXELS
from grounded_seg.train.data.encoded_images import EncodedImages, Stamp, stamp_of
from grounded_seg.train.data.questions import QuestionPlan, class_question, positive_questions, with_spaced_labels
from grounded_seg.train.data.records import BoxExample, Example, Fault, Question, SplitData, TrainingData
from grounded_seg.train.settings import PromptForm, TrainSettings

IGNORED = -100
"""Label of padding, which the loss leaves out."""
ABOUT_IMAGES = ("is_read", "image_number", "image_stamp")
"""Tensors of a batch that say which images it has."""
_CACHE_BYTES = 1 << 30
"""Of decoded images, all readers together."""
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


@dataclass(frozen=True, eq=False)
class Sample:
    """One question, ready to be put into a batch."""

    image: Image | None
    """None where its features are kept."""
    key: tuple[str, int]
    """Of the image as it is shown: it is encoded once for equal keys in a batch."""
    question_ids: torch.Tensor
    answer_ids: torch.Tensor
    number: int = -1
    """Of the image among the `EncodedImages`; -1 if its features are never kept."""
    stamp: Stamp = (0, 0)
    """Of the image's file."""


class ImageStore:
    """Reads images, resized where that is asked for, and keeps the last ones in memory."""

    def __init__(self, image_size: int | None = None, max_pixels: int = MAX_PIXELS, n_readers: int = 1) -> None:
        """Begin with none; `n_readers` processes with a store each share the memory."""
        self._image_size, self._max_pixels = image_size, max_pixels
        self._max_bytes = _CACHE_BYTES // n_readers
        self._kept: OrderedDict[str, tuple[Image, Stamp | None]] = OrderedDict()
        self._n_bytes = 0

    def read(self, question: Question) -> Image:
        """Give a question's image; one whose file was changed is read again."""
        path, key = question.example.image, str(question.example.image)
        stamp = stamp_of(path)
        if key in self._kept:
            image, known = self._kept[key]
            if stamp in (None, known):
                self._kept.move_to_end(key)
                return image
            self._n_bytes -= self._kept.pop(key)[0].pixels.nbytes
        image = resized_to_square(read_image(path, self._max_pixels), self._image_size)
        self._kept[key] = image, stamp
        self._n_bytes += image.pixels.nbytes
        while self._n_bytes > self._max_bytes and len(self._kept) > 1:
            self._n_bytes -= self._kept.popitem(last=False)[1][0].pixels.nbytes
        return image


class AnswerWriter:
    """Writes questions and answers in a model's own token ids."""

    def __init__(self, model: FlorenceModel) -> None:
        self._vocabulary: Vocabulary = model.vocabulary
        first = model.rules.forced_first_id
        self._lead = [] if first is None else [first]
        self._space_before_labels = model.rules.space_before_labels
        self.room = int(model.network.config.text_config.max_position_embeddings)
        """Longest answer in tokens."""

    def question_ids(self, question: Question) -> list[int]:
        """Give `<s>` words `</s>`."""
        return self._vocabulary.encode(question.text)

    def answer_ids(self, question: Question) -> list[int]:
        """Give what the decoder is to say: words and `</s>`, after the token that the model's answers begin with."""
        answer = question.answer
        # A token that the model never said is one that an adapter, which leaves the output layer alone, can hardly make
        # likely.
        if self._space_before_labels and isinstance(question.example, BoxExample):
            answer = with_spaced_labels(answer)
        return [*self._lead, *self._vocabulary.encode(answer)[1:]]


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made to images with boxes; images with texts stay as they are."""

    flips: bool
    """Half of the images, and their boxes."""
    colours: bool

    def changes(self, example: Example) -> bool:
        """Whether an example's image is changed at all."""
        return (self.flips or self.colours) and isinstance(example, BoxExample)

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


class QuestionDataset(Dataset[Sample]):
    """A plan's questions; what it gives depends on seed, epoch and index only, so that a training can be resumed."""

    def __init__(
        self,
        plan: QuestionPlan,
        writer: AnswerWriter,
        images: ImageStore,
        augmentation: Augmentation | None,
        seed: int,
        encoded: EncodedImages | None = None,
    ) -> None:
        """Begin with the first epoch's questions; images whose features are kept, going by `encoded`, aren't read."""
        self._plan, self._writer, self._images = plan, writer, images
        self._augmentation, self._seed = augmentation, seed
        self._encoded = EncodedImages((), is_shared=False) if encoded is None else encoded
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the questions of this epoch; accelerate calls it."""
        self._epoch = epoch
        self._questions = self._plan.epoch(epoch)
        images = sorted({str(one.example.image) for one in self._questions})
        self._index_by_image = {key: index for index, key in enumerate(images)}

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> Sample:
        question = self._questions[index]
        path, key = question.example.image, str(question.example.image)
        is_changed = self._augmentation is not None and self._augmentation.changes(question.example)
        number = -1 if is_changed else self._encoded.number(path)
        # Before the image is read: one that is changed meanwhile is then read again.
        stamp = stamp_of(path)
        image = None if self._encoded.is_kept(number, stamp) else self._images.read(question)
        if self._augmentation is not None and is_changed and image is not None:
            # One draw an image and epoch, so that all its questions in a batch share one picture.
            rng = np.random.default_rng((self._seed, self._epoch, self._index_by_image[key]))
            image, question = self._augmentation.apply(image, question, rng)
        return Sample(
            image,
            (key, self._epoch if is_changed else -1),
            torch.tensor(self._writer.question_ids(question)),
            torch.tensor(self._writer.answer_ids(question)),
            number,
            stamp or (0, 0),
        )


class Collator:
    """Puts samples together: each image once, questions and answers padded, padding left out of the loss."""

    def __init__(self, pixels: PixelSettings, pad_id: int) -> None:
        self._pixels = pixels
        self._pad_id = pad_id

    def __call__(self, samples: Sequence[Sample]) -> Mapping[str, torch.Tensor]:
        """Give the tensors of n samples of k images, of which m were read.

        `pixel_values` (m, 3, h, w), `is_read` (k,), `image_number` (k,) and `image_stamp` (k, 2) as in `Sample`,
        `image_index` (n,) among the k, `input_ids`, `attention_mask` and `labels` (n, t), and `label_places`: where
        tokens stand in the flat labels.
        """
        keys = list(dict.fromkeys(sample.key for sample in samples))
        # One of an image's samples may have been made before its features were kept, and another after.
        by_key = {one.key: one for one in sorted(samples, key=lambda one: one.image is not None)}
        shown = [by_key[key] for key in keys]
        read = [one.image for one in shown if one.image is not None]
        size = (self._pixels.height, self._pixels.width)
        input_ids = pad_sequence([one.question_ids for one in samples], batch_first=True, padding_value=self._pad_id)
        lengths = torch.tensor([len(one.question_ids) for one in samples])
        labels = pad_sequence([one.answer_ids for one in samples], batch_first=True, padding_value=IGNORED)
        return {
            "pixel_values": pixel_values(read, self._pixels) if read else torch.empty(0, 3, *size),
            "is_read": torch.tensor([one.image is not None for one in shown]),
            "image_number": torch.tensor([one.number for one in shown]),
            "image_stamp": torch.tensor([one.stamp for one in shown]),
            "image_index": torch.tensor([keys.index(sample.key) for sample in samples]),
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": labels,
            "label_places": (labels.flatten() != IGNORED).nonzero()[:, 0],
        }


def feature_grid(florence: FlorenceModel) -> tuple[int, int]:
    """Rows and columns of what the vision tower makes of an image."""
    config, height, width = florence.network.config.vision_config, florence.pixels.height, florence.pixels.width
    for size, stride, padding in zip(config.patch_size, config.patch_stride, config.patch_padding, strict=True):
        height, width = ((side + 2 * padding - size) // stride + 1 for side in (height, width))
    return height, width


def without_long_rows(data: TrainingData, florence: FlorenceModel, settings: TrainSettings) -> TrainingData:
    """Leave out rows with a question or an answer that is longer than the model can take; `InputError` if strict."""
    writer = AnswerWriter(florence)
    rows, columns = feature_grid(florence)
    # The mean over the image is a token too.
    n_image_tokens = rows * columns + 1

    def fault(example: Example) -> Fault | None:
        for question in positive_questions(example, settings.prompt_form):
            for what, length, room in (
                ("question", len(writer.question_ids(question)), writer.room - n_image_tokens),
                ("answer", len(writer.answer_ids(question)), writer.room),
            ):
                if length > room:
                    told = f"its {what} has {length} tokens, and this model takes {room}; shorten or split the row"
                    return Fault(example.source, told)
        return None

    found: dict[str, SplitData] = {}
    new: list[Fault] = []
    for name, split in data.splits.items():
        faults = {example: wrong for example in split.examples if (wrong := fault(example)) is not None}
        fits = tuple(example for example in split.examples if example not in faults)
        found[name] = SplitData(fits, (*split.faults, *faults.values()))
        new += faults.values()
    if new and (settings.strict or not found["train"].examples):
        raise InputError(str(new[0]))
    return replace(data, train=found["train"], valid=found["valid"], test=found["test"])
