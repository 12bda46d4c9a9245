"""What a well-formed answer is: one that its task's reader uses whole.

Each task's answers have a form. The form is an expression over kinds of pieces; boxes have their corners in order, and
nothing but `<s>` at the begin and `</s>` at the end is silent. The empty answer is well-formed for every task.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from grounded_seg.detect.answer.pieces import LOCATION, TEXT, Piece, TokenDecoder, pieces_from_tokens
from grounded_seg.detect.tasks import Task, TaskInput, TaskOutput


class AnswerForm(StrEnum):
    """The form of a task's answers."""

    ANY = "any"
    """Any tokens at all: for a question that is none of the tasks'."""
    TEXT = "text"
    TEXT_WITH_BOXES = "text with boxes"
    """Text that may repeat the region that was asked about, as published models do."""
    LABELLED_BOXES = "labelled boxes"
    BOXES = "boxes"
    LABELLED_BOXES_OR_OUTLINES = "labelled boxes or outlines"
    OUTLINES = "outlines"
    QUADS = "quads"


_FORMS = {
    TaskOutput.TEXT: AnswerForm.TEXT,
    TaskOutput.LABELLED_BOXES: AnswerForm.LABELLED_BOXES,
    TaskOutput.PHRASE_BOXES: AnswerForm.LABELLED_BOXES,
    TaskOutput.BOXES: AnswerForm.BOXES,
    TaskOutput.BOXES_OR_POLYGONS: AnswerForm.LABELLED_BOXES_OR_OUTLINES,
    TaskOutput.POLYGONS: AnswerForm.OUTLINES,
    TaskOutput.QUADS: AnswerForm.QUADS,
}

# Letters are kinds of pieces: t text, l location, s <sep>, p <poly>, q </poly>, m any other mark. A ring has two points
# at least, as one encloses nothing.
_RINGS = "(?:ll){2,}(?:s(?:ll){2,})*"
_MARKED = f"(?:p{_RINGS}q)+"
_PATTERNS = {
    AnswerForm.ANY: ".*",
    AnswerForm.TEXT: "t?",
    AnswerForm.TEXT_WITH_BOXES: "(?:t|l{4})*",
    AnswerForm.LABELLED_BOXES: "(?:t(?:l{4})+)*",
    AnswerForm.BOXES: "(?:l{4})*",
    AnswerForm.LABELLED_BOXES_OR_OUTLINES: f"(?:t(?:l{{4}})+)*|(?:t{_MARKED})*",
    AnswerForm.OUTLINES: f"(?:{_RINGS})?|{_MARKED}",
    AnswerForm.QUADS: "(?:tl{8})*",
}
WITH_ORDERED_CORNERS = (AnswerForm.LABELLED_BOXES, AnswerForm.BOXES, AnswerForm.LABELLED_BOXES_OR_OUTLINES)
"""Forms whose boxes have x0 <= x1 and y0 <= y1."""
WITH_LABELS = (AnswerForm.LABELLED_BOXES, AnswerForm.LABELLED_BOXES_OR_OUTLINES)
"""Forms whose texts are labels, which may not end with "<": the reader takes what follows the last one."""


def form_of(task: Task | None) -> AnswerForm:
    """The form of a task's answers; None is a question of another kind, whose answers may be anything."""
    if task is None:
        return AnswerForm.ANY
    is_about_region = task.takes is TaskInput.REGION and task.gives is TaskOutput.TEXT
    return AnswerForm.TEXT_WITH_BOXES if is_about_region else _FORMS[task.gives]


def is_well_formed(form: AnswerForm, token_ids: Sequence[int], decoder: TokenDecoder) -> bool:
    """Whether an answer, with or without its `<s>` and `</s>`, has this form; one that was cut off may have it too."""
    if form is AnswerForm.ANY:
        return True
    names = [decoder.id_to_token(token_id) for token_id in token_ids]
    first = 1 if names[:1] == ["<s>"] else 0
    end = len(names) - 1 if names[first:] and names[-1] == "</s>" else len(names)
    pieces = pieces_from_tokens(token_ids[first:end], decoder)
    if sum(len(piece.positions) for piece in pieces) < end - first:
        return False
    if not re.fullmatch(_PATTERNS[form], "".join(piece.kind for piece in pieces)):
        return False
    if form in WITH_LABELS and any(piece.kind == TEXT and piece.text.endswith("<") for piece in pieces):
        return False
    # Outlines have marks, boxes have none: their locations are whole boxes.
    has_boxes = form in WITH_ORDERED_CORNERS and all(piece.kind in (TEXT, LOCATION) for piece in pieces)
    return not has_boxes or _corners_are_in_order([piece for piece in pieces if piece.kind == LOCATION])


def _corners_are_in_order(locations: Sequence[Piece]) -> bool:
    bins = [piece.bin for piece in locations]
    return all(bins[at] <= bins[at + 2] for at in range(len(bins) - 2) if at % 4 < 2)
