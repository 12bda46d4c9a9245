"""Leave out what a model could never say: answers longer than its decoder has positions for."""

from dataclasses import replace

from grounded_seg.errors import InputError
from grounded_seg.train.questions import positive_questions
from grounded_seg.train.records import Fault, SplitData, TrainingData
from grounded_seg.train.samples import AnswerWriter
from grounded_seg.train.settings import TrainSettings


def without_long_rows(data: TrainingData, writer: AnswerWriter, settings: TrainSettings) -> TrainingData:
    """Leave out rows whose answer is longer than the model can say.

    Raises:
        InputError: If there are such rows and `strict` is on, or no other rows are left.
    """

    def kept(split: SplitData) -> SplitData:
        fits, faults = [], list(split.faults)
        for example in split.examples:
            longest = max(
                (len(writer.answer_ids(question)) for question in positive_questions(example, settings.prompt_form)),
                default=0,
            )
            if longest <= writer.room:
                fits.append(example)
            else:
                what = f"its answer has {longest} tokens, and this model's end at {writer.room}; split the row's boxes"
                faults.append(Fault(example.place, what))
        return SplitData(tuple(fits), tuple(faults))

    found = replace(data, train=kept(data.train), valid=kept(data.valid), test=kept(data.test))
    new = [fault for fault in found.faults if fault not in data.faults]
    if new and (settings.strict or not found.train.examples):
        raise InputError(str(new[0]))
    return found
