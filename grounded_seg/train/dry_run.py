"""What a training would learn: counts, lengths, and three examples drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.files import as_output_error
from grounded_seg.images.draw import draw, save_picture
from grounded_seg.images.read import read_image
from grounded_seg.records import ImageResult, Instance
from grounded_seg.train.data.checks import WorkProgress
from grounded_seg.train.data.records import BoxExample, Fault, Question, SplitData
from grounded_seg.train.data.samples import AnswerWriter
from grounded_seg.train.fit.preparation import prepare
from grounded_seg.train.settings import TrainSettings
from grounded_seg.weights.strict_loading import quiet_libraries

_N_DRAWN = 3


@dataclass(frozen=True)
class SplitCounts:
    """What one split holds."""

    n_images: int
    n_background: int
    """Images without any box."""
    boxes: Mapping[str, int]
    n_texts: int


@dataclass(frozen=True)
class DryRun:
    """What an epoch would teach, and how long the training would be."""

    splits: Mapping[str, SplitCounts]
    n_questions: int
    n_negatives: int
    steps_per_epoch: int
    n_steps: int
    """Of the whole training."""
    question_tokens: tuple[int, int, int]
    """Shortest, median and longest question of the first epoch; of answers with the tokens that begin and end them."""
    answer_tokens: tuple[int, int, int]
    examples: tuple[Question, ...]
    pictures: tuple[Path, ...]
    """The examples, with their answers drawn as they are read back."""
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    features: str
    """Whether image features are kept, and their size."""


@quiet_libraries()
def dry_run(
    settings: TrainSettings, progress: WorkProgress = lambda _what, _done, _all: None, *, resume: bool = False
) -> DryRun:
    """Check all that `train` checks before its first step, and draw three examples to `output/examples`."""
    prepared = prepare(settings, resume=resume, progress=progress)
    data, writer, plan = prepared.data, AnswerWriter(prepared.florence), prepared.plan
    questions = plan.epoch(0)
    with_answer = [one for one in questions if one.answer]
    chosen = tuple((with_answer or questions)[:_N_DRAWN])
    return DryRun(
        splits={name: _counts(split) for name, split in data.splits.items()},
        n_questions=len(plan),
        n_negatives=plan.n_negatives,
        steps_per_epoch=prepared.steps_per_epoch,
        n_steps=prepared.n_steps,
        question_tokens=_spread([len(writer.question_ids(one)) for one in questions]),
        answer_tokens=_spread([len(writer.answer_ids(one)) for one in questions]),
        examples=chosen,
        pictures=_drawn(chosen, settings.output / "examples"),
        faults=data.faults,
        notes=prepared.notes,
        features=prepared.features.line(),
    )


def _counts(split: SplitData) -> SplitCounts:
    boxed = [one for one in split.examples if isinstance(one, BoxExample)]
    return SplitCounts(
        n_images=len({one.image for one in split.examples}),
        n_background=sum(not one.boxes for one in boxed),
        boxes=Counter(box.label for one in boxed for box in one.boxes),
        n_texts=len(split.examples) - len(boxed),
    )


def _spread(lengths: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(lengths)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _drawn(questions: Sequence[Question], folder: Path) -> tuple[Path, ...]:
    """Draw boxes as they are read back from the answer's text, which is what the model will see."""
    paths = []
    for number, question in enumerate(questions, start=1):
        example = question.example
        if not isinstance(example, BoxExample):
            continue
        boxes = parse_answer("OD", question.answer, example.size).boxes
        instances = tuple(Instance(box, mask=None, mask_score=None) for box in boxes)
        image = read_image(example.image)
        paths.append(folder / f"{number}.jpg")
        with as_output_error():
            save_picture(paths[-1], draw(image, ImageResult(image.path, image.size, instances), with_scores=False))
    return tuple(paths)
