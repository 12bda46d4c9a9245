"""Florence-2's answers as boxes, polygons, quads and text in pixels.

Florence-2's own processor (MIT) is followed but for four things: letters outside ASCII stay in labels, a box's corners
are put in order, boxes without area are dropped, and special tokens never stay in labels.
"""

from collections.abc import Sequence

import numpy as np

from grounded_seg.detect.answer.box_scores import TokenEvidence, shape_score
from grounded_seg.detect.answer.grammar import Shape, ShapeKind, shapes_from_pieces
from grounded_seg.detect.answer.pieces import TokenDecoder, pieces_from_text, pieces_from_tokens
from grounded_seg.detect.answer.tokens import boxes_from_bins, points_from_bins
from grounded_seg.detect.tasks import Task, TaskOutput, find_task
from grounded_seg.errors import UsageError
from grounded_seg.records import Answer, BoxXyxy, Detection, ImageSize, LabelledPolygons, LabelledQuad


def parse_answer(
    task: Task | str,
    answer: str | Sequence[int],
    size: ImageSize,
    *,
    prompt: str = "",
    tokenizer: TokenDecoder | None = None,
    evidence: TokenEvidence | None = None,
) -> Answer:
    """Florence-2's answer in pixels, at the centres of the location bins; a malformed one is read as far as it goes.

    Args:
        task: A task, its name or its token: "OD", "<OD>".
        answer: The generated text, which may hold `<s>`, `</s>` and `<pad>`, or the generated token ids.
        size: The upright image that was asked about.
        prompt: What the user asked for. It goes into each detection, and is never dropped as a filler word.
        tokenizer: What decodes the ids; needed where the answer is token ids.
        evidence: The probabilities of the ids, which make the scores; without them all scores are 1.

    Raises:
        UsageError: If there is no such task, ids come without a tokenizer, or a text with evidence.

    >>> parse_answer("<OD>", "car<loc_10><loc_20><loc_300><loc_400>", ImageSize(1000, 1000)).boxes[0].box_xyxy
    (10.5, 20.5, 300.5, 400.5)
    """
    task = find_task(task) if isinstance(task, str) else task
    if isinstance(answer, str):
        if evidence is not None:
            raise UsageError("a text has no token ids that evidence could be of, pass the ids")
        pieces = pieces_from_text(answer)
    elif tokenizer is None:
        raise UsageError("an answer of token ids needs the tokenizer that decodes them, pass tokenizer=...")
    else:
        pieces = pieces_from_tokens([int(token_id) for token_id in answer], tokenizer)
    if task.gives is TaskOutput.TEXT:
        return Answer(text="".join(piece.text for piece in pieces).strip())
    boxes, polygons, quads = [], [], []
    for shape in shapes_from_pieces(task.gives, pieces, prompt):
        score = 1.0 if evidence is None else shape_score(shape, evidence)
        if shape.kind is ShapeKind.BOX:
            box = box_from_shape(shape, size)
            boxes += [] if box is None else [Detection(shape.label, prompt, box, score)]
            continue
        rings = tuple(_points(ring, size) for ring in shape.rings)
        if shape.kind is ShapeKind.OUTLINE:
            polygons.append(LabelledPolygons(shape.label, rings, score))
        else:
            first, second, third, fourth = rings[0]
            quads.append(LabelledQuad(shape.label, (first, second, third, fourth), score))
    return Answer(boxes=tuple(boxes), polygons=tuple(polygons), quads=tuple(quads))


def parse_tokens(task: Task, token_ids: Sequence[int], decoder: TokenDecoder, prompt: str = "") -> tuple[Shape, ...]:
    """The shapes of an answer, with the tokens that made each; none for a task that answers with text."""
    return shapes_from_pieces(task.gives, pieces_from_tokens(token_ids, decoder), prompt)


def box_from_shape(shape: Shape, size: ImageSize) -> BoxXyxy | None:
    """The box of a shape in pixels, corners in order, or the box around an outline or a quad; None without area."""
    xs = [x for ring in shape.rings for x in ring[0::2]]
    ys = [y for ring in shape.rings for y in ring[1::2]]
    if min(xs) == max(xs) or min(ys) == max(ys):
        return None
    x0, y0, x1, y1 = boxes_from_bins(np.array([[min(xs), min(ys), max(xs), max(ys)]]), size)[0].tolist()
    return x0, y0, x1, y1


def _points(ring: tuple[int, ...], size: ImageSize) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in points_from_bins(np.array(ring), size).tolist())
