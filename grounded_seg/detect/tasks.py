"""Florence-2's fifteen tasks as one table: the question of each, its input and its output.

The questions are those that the model was trained on (Florence-2's processor, MIT). A task's token, such as `<OD>`, is
only its name and never reaches the model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from grounded_seg.errors import UsageError

MAX_NEW_TOKENS = 1024
"""Longest answer, as on Florence-2's model card."""


class TaskInput(StrEnum):
    """What a task needs besides the image."""

    NOTHING = "nothing"
    PHRASE = "phrase"
    REGION = "region"
    """A box as four location tokens: `answer.tokens.text_from_bins`."""


class TaskOutput(StrEnum):
    """What form a task's answer has."""

    TEXT = "text"
    LABELLED_BOXES = "labelled boxes"
    """`car<loc>x4 wheel<loc>x4<loc>x4`: each label with one or more boxes."""
    PHRASE_BOXES = "phrase boxes"
    """Labelled boxes whose labels are phrases of the question."""
    BOXES = "boxes"
    """Boxes without labels."""
    BOXES_OR_POLYGONS = "boxes or polygons"
    """Labelled boxes, or, where the answer holds `<poly>`, labelled polygons."""
    POLYGONS = "polygons"
    """Polygons without labels, the parts of one object apart by `<sep>`."""
    QUADS = "quads"
    """Texts, each with the four corners of where it is written."""


@dataclass(frozen=True)
class Task:
    """One thing that Florence-2 can be asked."""

    name: str
    """As in the paper and the model card, such as OD."""
    template: str
    """The question, with `{input}` where the user's phrase or region goes."""
    takes: TaskInput = TaskInput.NOTHING
    gives: TaskOutput = TaskOutput.TEXT

    @property
    def token(self) -> str:
        """The task's name as the model card writes it, such as `<OD>`."""
        return f"<{self.name}>"

    def question(self, text: str = "") -> str:
        """The task's question with the phrase or region in it; a `UsageError` if it lacks one or takes none.

        >>> find_task("CAPTION_TO_PHRASE_GROUNDING").question("red car")
        'Locate the phrases in the caption: red car'
        """
        text = text.strip()
        if self.takes is TaskInput.NOTHING:
            if text:
                raise UsageError(f"the task {self.name} takes no text, leave out {text!r}")
            return self.template
        if not text:
            raise UsageError(f"the task {self.name} needs a {self.takes}, give it as text")
        return self.template.format(input=text)


_PHRASE, _REGION, _BOXES = TaskInput.PHRASE, TaskInput.REGION, TaskOutput.LABELLED_BOXES
_TASKS = (
    Task("CAPTION", "What does the image describe?"),
    Task("DETAILED_CAPTION", "Describe in detail what is shown in the image."),
    Task("MORE_DETAILED_CAPTION", "Describe with a paragraph what is shown in the image."),
    Task("OD", "Locate the objects with category name in the image.", gives=_BOXES),
    Task("DENSE_REGION_CAPTION", "Locate the objects in the image, with their descriptions.", gives=_BOXES),
    Task("REGION_PROPOSAL", "Locate the region proposals in the image.", gives=TaskOutput.BOXES),
    Task("CAPTION_TO_PHRASE_GROUNDING", "Locate the phrases in the caption: {input}", _PHRASE, TaskOutput.PHRASE_BOXES),
    Task("REFERRING_EXPRESSION_SEGMENTATION", "Locate {input} in the image with mask", _PHRASE, TaskOutput.POLYGONS),
    Task("REGION_TO_SEGMENTATION", "What is the polygon mask of region {input}", _REGION, TaskOutput.POLYGONS),
    Task("OPEN_VOCABULARY_DETECTION", "Locate {input} in the image.", _PHRASE, TaskOutput.BOXES_OR_POLYGONS),
    Task("REGION_TO_CATEGORY", "What is the region {input}?", _REGION),
    Task("REGION_TO_DESCRIPTION", "What does the region {input} describe?", _REGION),
    Task("REGION_TO_OCR", "What text is in the region {input}?", _REGION),
    Task("OCR", "What is the text in the image?"),
    Task("OCR_WITH_REGION", "What is the text in the image, with regions?", gives=TaskOutput.QUADS),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _TASKS})
"""Every task by its name."""


def find_task(name: str) -> Task:
    """The task of this name or token, as OD, od or <OD>; a `UsageError` that lists the tasks if there is none."""
    task = TASKS.get(name.strip().removeprefix("<").removesuffix(">").upper())
    if task is None:
        raise UsageError(f"there is no task {name!r}, choose one of {', '.join(TASKS)}")
    return task
