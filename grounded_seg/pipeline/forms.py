"""A result for other libraries, for a notebook, and as two lines of text. The home of pandas and supervision."""

import base64
import html
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.images.draw import draw, encoded_picture
from grounded_seg.images.read import read_or_skip
from grounded_seg.pipeline.arrays import ArrayResult
from grounded_seg.records import ImageSkipped

if TYPE_CHECKING:
    import pandas
    import supervision

_ROWS_SHOWN = 100
_PICTURE_SIDE_PX = 1024
_LINE = 120
"""Characters of a line of text, at most."""


def frame_from_result(result: ArrayResult) -> "pandas.DataFrame":
    """Give a data frame with a row for each instance.

    Its columns are path, prompt, class_id, class_name, label, score, mask_score, x0, y0, x1, y1 (the detector's box in
    pixels), mask_area_px and leaves_box; without masks, mask_score and mask_area_px are missing values.

    Raises:
        UsageError: If pandas isn't installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError(
            f"to_pandas() needs the package pandas ({error}); install it with `pip install pandas`"
        ) from error
    boxes, found = result.boxes_xyxy, result.instances
    columns: dict[str, Any] = {
        "path": [str(result.path)] * len(found),
        "prompt": result.prompts.tolist(),
        "class_id": result.class_ids,
        "class_name": result.class_names.tolist(),
        "label": result.labels.tolist(),
        "score": result.scores,
        "mask_score": pandas.array([one.mask_score for one in found], dtype="Float32"),
        **{name: boxes[:, column] for column, name in enumerate(("x0", "y0", "x1", "y1"))},
        "mask_area_px": pandas.array([None if one.mask is None else area_px(one.mask) for one in found], dtype="Int64"),
        "leaves_box": [one.leaves_box for one in found],
    }
    return pandas.DataFrame(columns)


def detections_from_result(result: ArrayResult) -> "supervision.Detections":
    """Give what was found on an image as one `supervision.Detections`, whatever is in it.

    `xyxy` is the tight box of the mask, as in the COCO file, or the detector's box where there is no mask. `data` holds
    `class_name`, `label`, `prompt` and `detector_xyxy`.

    Raises:
        UsageError: If supervision isn't installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise UsageError(
            f"to_supervision() needs the package supervision ({error}); install it with `pip install supervision`"
        ) from error
    found = result.instances
    boxes = [instance.box_xyxy if instance.mask is None else tight_box_xyxy(instance.mask) for instance in found]
    return supervision.Detections(
        xyxy=array_from_boxes(boxes).astype(np.float32),
        # Without instances there is no mask either, as in its own empty one.
        mask=result.masks if found else None,
        confidence=result.scores,
        class_id=result.class_ids,
        data={
            "class_name": result.class_names,
            "label": result.labels,
            "prompt": result.prompts,
            "detector_xyxy": result.boxes_xyxy,
        },
    )


def summary_of(result: ArrayResult) -> str:
    """Give two lines: what was asked about, and what was found."""
    n_found, n_asked = len(result.instances), len(result.asked.prompts)
    masks = "boxes only" if any(one.mask is None for one in result.instances) else "boxes and masks"
    first = f"{str(result.path)!r}, {result.size.width} x {result.size.height} px, {_counted(n_asked, 'prompt')}"
    if not n_found:
        return f"PromptedResult({first})\n  nothing found of {_cut(', '.join(map(repr, result.asked.prompts)))}"
    classes = Counter(result.class_names.tolist())
    named = ", ".join(f"{name!r}" if n == 1 else f"{name!r} x {n}" for name, n in classes.items())
    least, most = f"{result.scores.min():.2f}", f"{result.scores.max():.2f}"
    scores = f"score {most}" if least == most else f"scores {least} to {most}"
    return f"PromptedResult({first})\n  {_counted(n_found, 'instance')} ({masks}), {scores}: {_cut(named)}"


def html_from_result(result: ArrayResult) -> str:
    """Give the overlay, at most 1024 px wide and high, above a table of the instances; all text is escaped."""
    image = result.image or read_or_skip(result.path)
    if isinstance(image, ImageSkipped):
        picture = f"<p>{_escaped(image.reason)}</p>"
    else:
        pixels = draw(image, result, result.asked.prompts)
        encoded = base64.b64encode(encoded_picture(pixels, ".jpg", _PICTURE_SIDE_PX)).decode("ascii")
        picture = f'<img src="data:image/jpeg;base64,{encoded}" alt="overlay" style="max-width: 100%">'
    head = "".join(f"<th>{name}</th>" for name in ("", "prompt", "class", "label", "score", "box (x0, y0, x1, y1)"))
    rows = zip(result.instances[:_ROWS_SHOWN], result.class_names.tolist(), strict=False)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in cells) + "</tr>"
        for number, (one, name) in enumerate(rows)
        for cells in [(number, one.prompt, name, one.label, f"{one.score:.2f}", _box_text(one.box_xyxy))]
    )
    n_more = len(result.instances) - _ROWS_SHOWN
    more = f"<p>and {n_more} more</p>" if n_more > 0 else ""
    summary = "<br>".join(map(_escaped, summary_of(result).splitlines()))
    return f"<div><p>{summary}</p>{picture}<table><tr>{head}</tr>{body}</table>{more}</div>"


def _box_text(box_xyxy: tuple[float, ...]) -> str:
    return ", ".join(f"{edge:.1f}" for edge in box_xyxy)


def _escaped(cell: object) -> str:
    # Names can hold half characters, which no page can.
    return html.escape(str(cell).encode("utf-8", "backslashreplace").decode("utf-8"))


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _cut(text: str) -> str:
    return text if len(text) <= _LINE else f"{text[: _LINE - 3]}..."
