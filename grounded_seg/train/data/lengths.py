"""Leave out what a model can't take in or say: questions and answers longer than it has positions for."""

from dataclasses import replace

import torch

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.errors import InputError
from grounded_seg.train.data.questions import positive_questions
from grounded_seg.train.data.records import Example, Fault, SplitData, TrainingData
from grounded_seg.train.data.samples import AnswerWriter
from grounded_seg.train.settings import TrainSettings


def without_long_rows(data: TrainingData, florence: FlorenceModel, settings: TrainSettings) -> TrainingData:
    """Leave out rows with a question or an answer that is longer than the model can take.

    Args:
        data: What was read.
        florence: The base; it looks at one empty image, to see how many positions an image takes.
        settings: Form of the questions, and whether such rows are refused.

    Raises:
        InputError: If there are such rows and `strict` is on, or no other rows are left.
    """
    writer = AnswerWriter(florence)
    question_room = writer.room - _n_image_tokens(florence)

    def fault(example: Example) -> Fault | None:
        for question in positive_questions(example, settings.prompt_form):
            for what, length, room in (
                ("question", len(writer.question_ids(question)), question_room),
                ("answer", len(writer.answer_ids(question)), writer.room),
            ):
                if length > room:
                    told = f"its {what} has {length} tokens, and this model takes {room}; shorten or split the row"
                    return Fault(example.place, told)
        return None

    def kept(split: SplitData) -> SplitData:
        faults = [fault(example) for example in split.examples]
        fits = tuple(example for example, wrong in zip(split.examples, faults, strict=True) if wrong is None)
        return SplitData(fits, (*split.faults, *(wrong for wrong in faults if wrong is not None)))

    found = replace(data, train=kept(data.train), valid=kept(data.valid), test=kept(data.test))
    new = [wrong for wrong in found.faults if wrong not in data.faults]
    if new and (settings.strict or not found.train.examples):
        raise InputError(str(new[0]))
    return found


@torch.no_grad()
def _n_image_tokens(florence: FlorenceModel) -> int:
    empty = torch.zeros(1, 3, florence.pixels.height, florence.pixels.width)
    return int(florence.network.get_image_features(empty).pooler_output.shape[1])
