"""`grounded-seg ask`: one question about one image, with any of Florence-2's tasks."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grounded_seg.cli.messages import (
    cells,
    demo_note,
    hint,
    note,
    plain_table,
    set_up_messages,
    show,
    show_json,
    stdout_console,
)
from grounded_seg.cli.options import (
    PATH,
    beams_option,
    debug_option,
    detector_options,
    max_pixels_option,
    problems_as_options,
    settings_from,
)
from grounded_seg.errors import UsageError
from grounded_seg.setting_types import PositiveInt, convert_values, refuse
from grounded_seg.settings import DetectSettings, ModelSettings

if TYPE_CHECKING:
    from grounded_seg.detect.model.florence import FlorenceModel
    from grounded_seg.records import Answer

_DEMO_TASKS = ("CAPTION_TO_PHRASE_GROUNDING", "OPEN_VOCABULARY_DETECTION", "OD", "CAPTION")
"""Those that the demo weights were trained on."""
_MINUS_REGION = re.compile(r"-[\d.]+(\s*,\s*-?[\d.]+){3}")


class _AskCommand(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a blank before the minus of a region such as -5,0,10,10, which click would take for an option."""
        return super().parse_args(ctx, [f" {word}" if _MINUS_REGION.fullmatch(word) else word for word in args])


@click.command(cls=_AskCommand)
@click.argument("task")
@click.argument("text", nargs=-1, metavar="[TEXT]")
@click.argument("image", type=PATH)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="Folder for the answer as IMAGE-TASK.json, and as a picture (.png) if it has locations.",
)
@detector_options
@beams_option
@click.option("--max-new-tokens", default=1024, show_default=True, help="Maximum number of tokens in the answer.")
@max_pixels_option
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON instead of a table.")
@debug_option
def ask(
    task: str, text: tuple[str, ...], image: Path, output: Path | None, as_json: bool, debug: bool, **options: Any
) -> None:
    """Ask Florence-2 about IMAGE: captions, objects, outlines, text reading.

    \b
    TASK needs no TEXT:
      CAPTION  DETAILED_CAPTION  MORE_DETAILED_CAPTION  OD  DENSE_REGION_CAPTION
      REGION_PROPOSAL  OCR  OCR_WITH_REGION
    TASK needs a phrase as TEXT:
      CAPTION_TO_PHRASE_GROUNDING  REFERRING_EXPRESSION_SEGMENTATION
      OPEN_VOCABULARY_DETECTION
    TASK needs a region as TEXT, "x0,y0,x1,y1" in pixels:
      REGION_TO_SEGMENTATION  REGION_TO_CATEGORY  REGION_TO_DESCRIPTION
      REGION_TO_OCR

    Each outline also comes as a mask, as COCO run lengths. Every box, outline and quad has a score.

    Exit code: 0 answered, 1 the answer can't be written, 2 usage, 3 unreadable image, 4 weights missing or wrong,
    5 device, 130 interrupted.
    """  # noqa: D301  (click reads \b as a character, and keeps the lines after it)
    set_up_messages(debug=debug)
    given = [*text, str(image)]
    if text and all(map(os.path.isfile, given)):
        raise UsageError(f"{' and '.join(given)} are files; ask takes one image")
    if len(text) > 1:
        raise UsageError(f"there are {len(text)} words between TASK and IMAGE; put them in quotes to make one text")
    # The quick checks come first, so that a wrong question is an error before a model is loaded.
    numbers = {name: options.pop(name) for name in ("beams", "max_new_tokens", "max_pixels")}
    with problems_as_options():
        refuse(convert_values(numbers, dict.fromkeys(numbers, PositiveInt))[1])
    # These import torch and numpy, which would slow --help down.
    from grounded_seg.detect.ask import answer_as_json, question_about
    from grounded_seg.detect.ask import ask as ask_model
    from grounded_seg.detect.tasks import TaskInput, find_task
    from grounded_seg.images.read import read_image

    asked, found = "".join(text).strip(), find_task(task)
    picture = read_image(image, numbers.pop("max_pixels"))
    question_about(found, asked, picture.size)
    if ";" in asked and found.takes is TaskInput.PHRASE:
        hint(f"{asked!r} is asked as one phrase; only run takes several, separated by semicolons")
    model = _load(settings_from(ModelSettings, options), found.name)
    answer = ask_model(model, found, picture, asked, **numbers)
    content = answer_as_json(found, asked, picture, answer)
    try:
        # First, as a closed or full standard output doesn't take the answer.
        if output is not None:
            _write(output, f"{image.stem}-{found.name}", content, picture, answer)
    finally:
        # Also where the folder can't be written: the answer took long.
        if as_json:
            show_json(json.dumps(content))
        else:
            _print(answer)


def _load(models: ModelSettings, task: str) -> "FlorenceModel":
    from grounded_seg.pipeline.load import find_models, load_found_detector

    found = find_models(models, boxes_only=True)
    detector = load_found_detector(found, DetectSettings(), allow_base_mismatch=models.allow_base_mismatch)
    text = demo_note(models, boxes_only=True)
    if text is not None and task not in _DEMO_TASKS and models.adapter in (None, "none"):
        learnt = f"{', '.join(_DEMO_TASKS[:-1])} and {_DEMO_TASKS[-1]}"
        text = f"the demo weights learnt only {learnt}; {task} isn't among them: use --preset base-ft or large-ft"
    if text is not None:
        note(text)
    return detector.model


def _write(folder: Path, name: str, content: dict[str, Any], picture: Any, answer: "Answer") -> None:
    """Write NAME.json, and NAME.png if the answer has locations; files of these names are replaced, and told."""
    from grounded_seg.detect.ask import draw_answer
    from grounded_seg.files import as_output_error, write_text
    from grounded_seg.images.draw import save_picture

    with as_output_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / f"{name}.json"]
        write_text(written[0], json.dumps(content, indent=1) + "\n")
        if answer.boxes or answer.polygons or answer.quads:
            written.append(folder / f"{name}.png")
            save_picture(written[1], draw_answer(picture, answer))
        else:
            # Of an earlier answer, which the file beside it no longer has.
            (folder / f"{name}.png").unlink(missing_ok=True)
    # On stdout there is nothing but the answer.
    note(f"the answer is in {' and '.join(map(str, written))}")


def _print(answer: "Answer") -> None:
    rows = [(one.label, f"{one.score:.2f}", _corners([one.box_xyxy])) for one in answer.boxes]
    rows += [(one.label, f"{one.score:.2f}", f"{sum(map(len, one.polygons))} corners") for one in answer.polygons]
    rows += [(one.label, f"{one.score:.2f}", _corners(one.quad)) for one in answer.quads]
    if answer.text:
        # For scripts: nothing but the text.
        show(answer.text)
    elif not rows:
        show("nothing found")
    else:
        table = plain_table("label", "score", "where")
        for row in rows:
            table.add_row(*cells(*row))
        stdout_console().print(table)


def _corners(points: Any) -> str:
    return " ".join(f"{value:.0f}" for point in points for value in point)
