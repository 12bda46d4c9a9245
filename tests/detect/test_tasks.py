import pytest
from tiny_florence import make_processor

from grounded_seg.detect.tasks import TASKS, Task, TaskInput, TaskOutput, find_task
from grounded_seg.errors import UsageError


def test_there_are_fifteen_tasks_with_their_inputs_and_outputs() -> None:
    table = {name: (task.takes.value, task.gives.value) for name, task in TASKS.items()}
    assert table == {
        "CAPTION": ("nothing", "text"),
        "DETAILED_CAPTION": ("nothing", "text"),
        "MORE_DETAILED_CAPTION": ("nothing", "text"),
        "OD": ("nothing", "labelled boxes"),
        "DENSE_REGION_CAPTION": ("nothing", "labelled boxes"),
        "REGION_PROPOSAL": ("nothing", "boxes"),
        "CAPTION_TO_PHRASE_GROUNDING": ("phrase", "phrase boxes"),
        "REFERRING_EXPRESSION_SEGMENTATION": ("phrase", "polygons"),
        "REGION_TO_SEGMENTATION": ("region", "polygons"),
        "OPEN_VOCABULARY_DETECTION": ("phrase", "boxes or polygons"),
        "REGION_TO_CATEGORY": ("region", "text"),
        "REGION_TO_DESCRIPTION": ("region", "text"),
        "REGION_TO_OCR": ("region", "text"),
        "OCR": ("nothing", "text"),
        "OCR_WITH_REGION": ("nothing", "quads"),
    }


def test_every_question_is_the_one_that_transformers_asks() -> None:
    theirs = make_processor()
    assert set(theirs.tasks_answer_post_processing_type) == {task.token for task in TASKS.values()}
    for task in TASKS.values():
        text = "" if task.takes is TaskInput.NOTHING else " a {red} car "
        assert [task.question(text)] == theirs._construct_prompts(task.token + text)


def test_a_missing_or_needless_text_is_refused() -> None:
    with pytest.raises(UsageError, match="OCR_WITH_REGION takes no text"):
        TASKS["OCR_WITH_REGION"].question("car")
    with pytest.raises(UsageError, match="OPEN_VOCABULARY_DETECTION needs a phrase"):
        TASKS["OPEN_VOCABULARY_DETECTION"].question("  ")


@pytest.mark.parametrize("name", ["OD", "<OD>", "od"])
def test_a_task_is_found_by_name_and_by_token(name: str) -> None:
    expected = Task(
        "OD", "Locate the objects with category name in the image.", TaskInput.NOTHING, TaskOutput("labelled boxes")
    )
    assert find_task(name) == expected


def test_an_unknown_task_is_answered_with_the_list() -> None:
    with pytest.raises(UsageError, match=r"'<ODD>'.*CAPTION.*OCR_WITH_REGION"):
        find_task("<ODD>")
