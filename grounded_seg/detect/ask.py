"""One question of any task to one image: the whole of Florence-2, beside the detector's own three tasks."""

from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.detect.model.florence import MAX_NEW_TOKENS, FlorenceModel
from grounded_seg.detect.questions import question_about
from grounded_seg.detect.tasks import Task
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.records import Answer, Image


def ask(
    model: FlorenceModel,
    task: Task,
    image: Image,
    text: str = "",
    *,
    adapter: str | None = None,
    beams: int = 1,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Answer:
    """Ask a question and read the answer.

    Args:
        model: A loaded Florence-2.
        task: What is asked.
        image: Of any size.
        text: The words that the task needs, or the region, see `questions.region_text`; empty where none is needed.
        adapter: Which of the adapters that are loaded beside the weights to use; None for none of them.
        beams: Beam width; 1 is greedy.
        max_new_tokens: Longest answer; what is cut off there is read as far as it is whole.

    Returns:
        What the task answers with, every box, outline and quad with its score.

    Raises:
        UsageError: If the task needs a text and there is none, takes none and there is one, the text isn't a region
            where one is needed, is too long for the model or isn't UTF-8, or no adapter has this name.
        DeviceError: If the device runs out of memory.
    """
    question = question_about(task, text, image.size)
    with out_of_memory_as_device_error("looking at the image", "Use a smaller preset."), model.using(adapter):
        [said] = model.answer(model.encode_images([image]), [question], beams=beams, max_new_tokens=max_new_tokens)
    return parse_answer(
        task,
        said.token_ids,
        image.size,
        prompt=text.strip(),
        tokenizer=model.vocabulary,
        evidence=said.evidence,
    )
