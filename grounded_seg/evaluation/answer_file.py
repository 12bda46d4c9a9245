"""The answers of an evaluation: lines of JSON in its folder, the settings first and then one line an image.

With a folder, an evaluation that was cut off goes on where it was. A line holds what was found, what was made of the
true boxes, and the seconds of each stage. Like a run's journal, the file is locked: two evaluations can't write it.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from grounded_seg.errors import UsageError
from grounded_seg.evaluation.requests import Questions
from grounded_seg.files import as_output_error
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.runs.journal import lock
from grounded_seg.setting_types import PositiveInt, convert_fields, refuse
from grounded_seg.settings import MAX_PIXELS, DetectSettings, ModelSettings, SegmentSettings, TileSettings

LINES_NAME = "answers.jsonl"

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskSettings:
    """How a data set is asked about."""

    images: Path
    """Folder that the data set's file names start from."""
    models: ModelSettings = field(default_factory=ModelSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    """Its score threshold is only for presence: average precision takes every box."""
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    tiles: TileSettings | None = None
    """How large images are cut; None for not at all."""
    boxes_only: bool = False
    batch_size: PositiveInt = 1
    """Images that go through the models together."""
    max_pixels: PositiveInt = MAX_PIXELS
    """Width x height above which an image is refused before it is decoded."""
    output: Path | None = None
    """Folder that keeps the answers; None for none."""
    resume: bool = False
    """Go on with the answers in `output`."""

    def __post_init__(self) -> None:
        """Convert what was given, and refuse all that is wrong or contradictory at once."""
        problems = convert_fields(self)
        if self.resume and self.output is None:
            problems.append("--resume needs the folder of the answers; name it with --output")
        refuse(problems)


def asked_with(settings: AskSettings, models: FoundModels) -> dict[str, Any]:
    """Say in JSON what the models are, where they run and how they are asked; for the answers' file and the report."""
    weights = {part: getattr(models, part) for part in ("detector", "adapter", "segmenter")}
    fixed = {
        "weights": {
            part: None if located is None else {"name": located.name, "sha256": located.sha256}
            for part, located in weights.items()
        },
        "device": models.device,
        "dtype": models.dtype,
        "threads": models.threads,
        "versions": asdict(models.versions),
        "detect": asdict(replace(settings.detect, score_threshold=0.0)),
        "segment": asdict(settings.segment),
        "tiles": None if settings.tiles is None else asdict(settings.tiles),
        "boxes_only": settings.boxes_only,
        "batch_size": settings.batch_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(fixed))
    return plain


def _header(questions: Questions, settings: AskSettings, models: FoundModels) -> dict[str, Any]:
    """Everything that the answers depend on; weights by their hash, as they may have moved."""
    fixed = asked_with(settings, models)
    fixed["weights"] = {part: located and located["sha256"] for part, located in fixed["weights"].items()}
    fixed |= {
        "images": {str(image.id): image.file_name for image in questions.data_set.images},
        "prompts": {str(image): asked.class_by_prompt for image, asked in questions.by_image.items()},
        "boxes": [(one.image_id, one.category_id, one.bbox_xywh) for one in questions.data_set.objects],
    }
    plain: dict[str, Any] = json.loads(json.dumps(fixed))
    return plain


@contextmanager
def locked(settings: AskSettings) -> Iterator[None]:
    """Make the file of the answers if it isn't there, and keep other evaluations off it; for the whole of this one.

    Raises:
        UsageError: If another evaluation is writing it.
        OutputError: If it can't be written.
    """
    if settings.output is None:
        yield
        return
    path = settings.output / LINES_NAME
    with as_output_error(path):
        settings.output.mkdir(parents=True, exist_ok=True)
        file = FileIO(path, "a+")
    with file:
        try:
            lock(file)
        except BlockingIOError as error:
            raise UsageError(
                f"another eval is writing {path}; wait for its end, or name another folder with --output"
            ) from error
        except OSError as error:
            _LOG.warning("%s can't be locked (%s); see to it that no other eval writes there", path, error.strerror)
        yield


def kept_lines(questions: Questions, settings: AskSettings, models: FoundModels) -> list[dict[str, Any]]:
    """Read the answers there are, or start a file for them; within `locked`.

    Raises:
        UsageError: If there are answers and they aren't to be gone on with, or belong to other settings, weights,
            device, number format, threads or software.
        OutputError: If the file can't be written.
    """
    if settings.output is None:
        return []
    path, header = settings.output / LINES_NAME, _header(questions, settings, models)
    text = _text_of(path)
    # A line that was cut off by a kill is asked again.
    whole = text[: text.rfind("\n") + 1]
    complete = whole.splitlines()
    try:
        first, lines = json.loads(complete[0]) if complete else header, [json.loads(line) for line in complete[1:]]
        by_image = {line["image_id"]: line for line in reversed(lines)}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} holds no answers of eval; name another --output") from error
    if lines and not settings.resume:
        raise UsageError(f"{path} holds answers already; add --resume to go on with them, or name another --output")
    if lines and first != header:
        changed = [key for key in header if not isinstance(first, dict) or first.get(key) != header[key]]
        raise UsageError(f"{path} holds answers to other {', '.join(changed)}; name another --output")
    with as_output_error():
        if not lines:
            path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        elif whole != text:
            # The rest stays as it is: a file written anew could be lost in a crash, with all its answers.
            os.truncate(path, len(whole.encode()))
    if len(by_image) < len(lines):
        _LOG.warning("%s holds %d answers twice; each counts once", path, len(lines) - len(by_image))
    return list(reversed(by_image.values()))


def _text_of(path: Path) -> str:
    """Read the answers; "" where there are none yet."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise UsageError(f"{path} can't be read ({reason}); name another --output") from error


def keep(line: Mapping[str, Any], settings: AskSettings) -> None:
    """Add one image's answers to the file, where there is one.

    Raises:
        OutputError: If it can't be written.
    """
    if settings.output is None:
        return
    with as_output_error(), (settings.output / LINES_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
