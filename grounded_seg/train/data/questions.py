"""From examples to questions and their answers, as `run` asks and as Florence-2 writes them."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from grounded_seg.detect.answer.tokens import bins_from_boxes, text_from_bins
from grounded_seg.detect.tasks import TASKS
from grounded_seg.errors import InputError
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.records import ImageSize
from grounded_seg.train.data.records import BoxExample, Example, LabelledBox, Question, SplitData, TrainingData
from grounded_seg.train.settings import PromptForm, TrainSettings

_CLASS_TASK = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
_OD_QUESTION = TASKS["OD"].question()
_BEFORE_LABEL = re.compile(r"(^|<loc_\d+>)(?!<loc_\d+>|$)")


def answer_from_boxes(boxes: Sequence[LabelledBox], size: ImageSize) -> str:
    """Write boxes as Florence-2 does: grouped by label, each box four location tokens; nothing for no boxes.

    From left to right, then top to bottom, labels in the order of their first box: one set of boxes has one answer.

    >>> car, wheel = LabelledBox("car", (50, 20, 100, 60)), LabelledBox("wheel", (0, 0, 10, 10))
    >>> answer_from_boxes([car, wheel], ImageSize(100, 100))
    'wheel<loc_0><loc_0><loc_100><loc_100>car<loc_500><loc_200><loc_999><loc_600>'
    """
    bins = bins_from_boxes(array_from_boxes([box.box_xyxy for box in boxes]), size)
    groups: dict[str, list[int]] = {}
    for index in sorted(range(len(boxes)), key=lambda index: bins[index].tolist()):
        groups.setdefault(boxes[index].label, []).append(index)
    return "".join(label + text_from_bins(bins[indices]) for label, indices in groups.items())


def with_spaced_labels(answer: str) -> str:
    """Put a space before each label of an answer, for models that were taught so.

    >>> with_spaced_labels("wheel<loc_0><loc_0><loc_9><loc_9>car<loc_5><loc_2><loc_9><loc_6>")
    ' wheel<loc_0><loc_0><loc_9><loc_9> car<loc_5><loc_2><loc_9><loc_6>'
    """
    return _BEFORE_LABEL.sub(r"\1 ", answer)


def positive_questions(example: Example, form: PromptForm) -> tuple[Question, ...]:
    """Ask an example about what is on it; a background image has no such question, but for the form `od`."""
    if not isinstance(example, BoxExample):
        return (Question(example, example.question, example.answer),)
    if form is PromptForm.OD:
        # Where some objects aren't listed there is no right answer.
        answer = answer_from_boxes(example.boxes, example.size)
        return () if example.unsure else (Question(example, _OD_QUESTION, answer),)
    labels = dict.fromkeys(box.label for box in example.boxes)
    return tuple(class_question(example, label) for label in labels)


def class_question(example: BoxExample, prompt: str) -> Question:
    """Ask for one class, whether it is there or not."""
    boxes = [box for box in example.boxes if box.label == prompt]
    return Question(example, _CLASS_TASK.question(prompt), answer_from_boxes(boxes, example.size), prompt)


def all_questions(examples: Sequence[Example], prompts: Sequence[str], form: PromptForm) -> list[Question]:
    """Ask examples about every class, there or not, as `eval` does; with the form `od` and for texts once each."""
    questions: list[Question] = []
    for example in examples:
        if isinstance(example, BoxExample) and form is PromptForm.CLASS:
            asked = dict.fromkeys((*prompts, *sorted(example.rejected)))
            questions += [class_question(example, prompt) for prompt in asked if prompt not in example.unsure]
        else:
            questions += positive_questions(example, form)
    return questions


class QuestionPlan:
    """The questions of each epoch: all that have an answer, and negatives drawn anew each time."""

    def __init__(
        self,
        examples: Sequence[Example],
        prompts: Sequence[str],
        form: PromptForm,
        negative_ratio: float,
        seed: int,
        group: int = 1,
    ) -> None:
        """Prepare the plan.

        Args:
            examples: What is learnt from.
            prompts: All that is asked for: what isn't on an image is its negatives.
            form: With `od` the only negatives are background images.
            negative_ratio: Negatives for each question about a class that is there. Unless it is 0, every background
                image is asked at least once an epoch, and every image about what was rejected on it.
            seed: Of the draws and the order.
            group: How many questions about one image may stand together, which spares the image's encoding.
        """
        self._positive = [question for example in examples for question in positive_questions(example, form)]
        if form is PromptForm.OD and not negative_ratio:
            self._positive = [one for one in self._positive if one.answer]
        boxed = [one for one in examples if isinstance(one, BoxExample) and form is PromptForm.CLASS and negative_ratio]
        self._absent = [(example, absent) for example in boxed if (absent := _absent_from(example, prompts))]
        n_about_boxes = sum(isinstance(one.example, BoxExample) for one in self._positive)
        n_always = sum(_n_rejected(*one) or not one[0].boxes for one in self._absent)
        self._n_absent = sum(len(absent) for _, absent in self._absent)
        self.n_negatives = min(max(round(negative_ratio * n_about_boxes), n_always), self._n_absent)
        self._seed = seed
        self._group = group

    def __len__(self) -> int:
        return len(self._positive) + self.n_negatives

    def epoch(self, number: int) -> list[Question]:
        """The questions of an epoch, counted from 0, in their order: always the same ones."""
        rng = np.random.default_rng((self._seed, number))
        by_image: dict[str, list[Question]] = defaultdict(list)
        for question in [*self._positive, *self._negatives(rng)]:
            by_image[str(question.example.image)].append(question)
        groups = []
        for questions in by_image.values():
            shuffled = [questions[index] for index in rng.permutation(len(questions)).tolist()]
            groups += [shuffled[start : start + self._group] for start in range(0, len(shuffled), self._group)]
        return [question for index in rng.permutation(len(groups)).tolist() for question in groups[index]]

    def _negatives(self, rng: np.random.Generator) -> list[Question]:
        """Draw absent prompts of images, none twice.

        Those that were rejected come first, then one for each other background image, so that each is asked something.
        """
        ends = np.cumsum([len(absent) for _, absent in self._absent], dtype=np.int64)
        chosen = set()
        for end, (example, absent) in zip(ends.tolist(), self._absent, strict=True):
            if n_rejected := _n_rejected(example, absent):
                chosen |= set(range(end - len(absent), end - len(absent) + n_rejected))
            elif not example.boxes:
                chosen.add(int(end - 1 - rng.integers(len(absent))))
        for number in rng.permutation(self._n_absent).tolist():
            if len(chosen) == self.n_negatives:
                break
            chosen.add(number)
        questions = []
        for number in sorted(chosen):
            index = int(np.searchsorted(ends, number, side="right"))
            example, absent = self._absent[index]
            questions.append(class_question(example, absent[number - int(ends[index])]))
        return questions


def training_plan(data: TrainingData, settings: TrainSettings, group: int = 1) -> QuestionPlan:
    """The questions of a data set's training split; `InputError` if there are none."""
    plan = split_plan(data.train, data, settings, group)
    if not len(plan):
        raise InputError(f"{settings.dataset} has neither objects nor texts to train on; annotate some of its images")
    return plan


def split_plan(split: SplitData, data: TrainingData, settings: TrainSettings, group: int = 1) -> QuestionPlan:
    """Plan the questions of any split, maybe none."""
    prompts = all_prompts(data, settings)
    return QuestionPlan(split.examples, prompts, settings.prompt_form, settings.negative_ratio, settings.seed, group)


def all_prompts(data: TrainingData, settings: TrainSettings) -> tuple[str, ...]:
    """Give the classes, and what else is asked for as absent, each once."""
    return tuple(dict.fromkeys((*data.classes, *settings.negatives)))


def _absent_from(example: BoxExample, prompts: Sequence[str]) -> tuple[str, ...]:
    """Give the prompts that an image is a negative of, those that were rejected on it first."""
    there = {box.label for box in example.boxes} | example.unsure
    asked = dict.fromkeys((*sorted(example.rejected), *prompts))
    return tuple(prompt for prompt in asked if prompt not in there)


def _n_rejected(example: BoxExample, absent: Sequence[str]) -> int:
    """Count those at the start of the absent prompts that were rejected."""
    return sum(prompt in example.rejected for prompt in absent)
