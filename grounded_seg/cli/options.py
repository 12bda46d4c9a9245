"""Options that several commands share, named after the settings' fields, and the settings built from them."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from grounded_seg.errors import UsageError
from grounded_seg.setting_types import ShareBelowOne, convert_values, refuse
from grounded_seg.settings import (
    MAX_PIXELS,
    DetectSettings,
    GroundingTask,
    ModelSettings,
    Precision,
    SegmentSettings,
    SuppressionScope,
    TileSettings,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings")

PATH = click.Path(path_type=Path)
COUNT = click.IntRange(min=0)


class EnumChoice(click.Choice[Any]):
    """A choice among an enum's values; click by itself would take its names."""

    def normalize_choice(self, choice: Any, ctx: click.Context | None) -> str:  # noqa: ARG002  (click's signature)
        """Give the text that stands for a member on the command line."""
        return str(choice)


def number(flag: str, default: float, help_text: str) -> Callable[[_Command], _Command]:
    """Make an option for a number of the default's type, which --help shows."""
    return click.option(flag, type=type(default), default=default, show_default=True, help=help_text)


debug_option = click.option(
    "--debug", is_flag=True, help="Show the traceback of an error, and the messages of the libraries."
)
offline_option = click.option("--offline", is_flag=True, help="Download nothing; use only what is on this disk.")
batch_size_option = number("--batch-size", 1, "Number of images that go through the models together.")
beams_option = number(
    "--beams", DetectSettings.beams, "Number of beams when the answer is generated; 1 is greedy decoding."
)
max_pixels_option = number(
    "--max-pixels", MAX_PIXELS, "Refuse images of more pixels than this, before they are decoded."
)

_WHICH_DETECTOR = (
    click.option(
        "--preset",
        default=ModelSettings.preset,
        envvar="GROUNDED_SEG_PRESET",
        show_default=True,
        show_envvar=True,
        help="Named set of weights: demo (included, for rendered scenes only), base, base-ft, large or large-ft.",
    ),
    click.option(
        "--detector",
        metavar="ID|DIR",
        help="Florence-2 to use instead of the preset's: a folder, or a Hugging Face id, where ID@COMMIT fixes the "
        "version.",
    ),
    click.option(
        "--adapter",
        metavar="ID|DIR|none",
        help="LoRA adapter to use instead of the preset's; none for no adapter.",
    ),
)
_SEGMENTER = click.option(
    "--segmenter", metavar="ID|FILE|DIR", help="SAM, SAM-HQ or SAM 2 to use instead of the preset's."
)
_WHERE_IT_RUNS = (
    click.option(
        "--device",
        default=ModelSettings.device,
        show_default=True,
        help="Device that the models run on: auto, cpu, cuda, cuda:N or mps.",
    ),
    click.option(
        "--dtype",
        type=EnumChoice(Precision),
        default=ModelSettings.dtype.value,
        show_default=True,
        help="Dtype of the models; auto is the fastest that the device supports in hardware.",
    ),
    offline_option,
    click.option(
        "--allow-base-mismatch",
        is_flag=True,
        help="Load an adapter even if it was trained on another base model.",
    ),
)


def model_options(command: _Command) -> _Command:
    """Add the options of `ModelSettings`."""
    return _with(command, *_WHICH_DETECTOR, _SEGMENTER, *_WHERE_IT_RUNS)


def detector_options(command: _Command) -> _Command:
    """Add the options of `ModelSettings`, without the segmenter's."""
    return _with(command, *_WHICH_DETECTOR, *_WHERE_IT_RUNS)


def detect_options(command: _Command, *, threshold_help: str = "Drop boxes below this score.") -> _Command:
    """Add the options of `DetectSettings`, with what the score threshold means to the command."""
    return _with(
        command,
        click.option(
            "--task",
            type=EnumChoice(GroundingTask),
            default=DetectSettings.task.value,
            show_default=True,
            help="Florence-2 task that asks the prompt: all objects a phrase names, one class by name, or the one "
            "object that is meant.",
        ),
        number("--score-threshold", DetectSettings.score_threshold, threshold_help),
        click.option(
            "--nms",
            type=EnumChoice(SuppressionScope),
            default=DetectSettings.nms.value,
            show_default=True,
            help="Scope of duplicate removal (NMS): within a class, across classes, or none.",
        ),
        number(
            "--iou-threshold", DetectSettings.iou_threshold, "Drop a box whose IoU with a better one is above this."
        ),
        number(
            "--box-containment-threshold",
            DetectSettings.box_containment_threshold,
            "Drop the lower-scored of two boxes if more than this share of the smaller one lies inside the other; "
            "1 is off.",
        ),
        number(
            "--max-detections",
            DetectSettings.max_detections,
            "Maximum number of boxes per image and prompt; the best by score are kept.",
        ),
        beams_option,
    )


def segment_options(command: _Command) -> _Command:
    """Add the options of `SegmentSettings`."""
    return _with(
        command,
        click.option(
            "--multimask",
            is_flag=True,
            help="Predict three masks per box and keep the one with the highest predicted IoU.",
        ),
        click.option(
            "--clean", is_flag=True, help="Keep only the largest connected part of each mask, and fill its holes."
        ),
        number("--min-area", SegmentSettings.min_area, "Drop masks of fewer pixels than this."),
        number(
            "--outside-share",
            SegmentSettings.outside_share,
            "Mark masks with more than this share of their pixels outside their box.",
        ),
        number(
            "--mask-iou-threshold",
            SegmentSettings.mask_iou_threshold,
            "Drop a mask whose IoU with a better one of the same prompt is above this; 1 is off.",
        ),
        number(
            "--containment-threshold",
            SegmentSettings.containment_threshold,
            "Drop the lower-scored of two masks of a prompt if more than this share of the smaller one lies inside the "
            "other; 1 is off.",
        ),
        click.option(
            "--compile",
            is_flag=True,
            help="Compile the image encoders of both stages with torch.compile: up to minutes before the first image, "
            "faster after that.",
        ),
    )


def tile_options(command: _Command) -> _Command:
    """Add the options of `TileSettings`."""
    return _with(
        command,
        click.option(
            "--tile",
            type=int,
            metavar="PX",
            help="Search larger images also in tiles of this side, in pixels, to find small objects.",
        ),
        number("--overlap", TileSettings.overlap, "Share of a tile that the next tile shows too."),
    )


def settings_from(kind: type[_Settings], options: Mapping[str, Any]) -> _Settings:
    """Build settings, and the settings within them, from the options named as their fields.

    Raises:
        UsageError: If values are wrong; it names all of them.
    """
    # The overlap is checked even where nothing is cut.
    unused = {"overlap": options["overlap"]} if options.get("tile", 1) is None else {}
    _, problems = convert_values(unused, {"overlap": ShareBelowOne})
    try:
        settings = kind(**_values_of(kind, options))
    except UsageError as error:
        problems.append(str(error))
    refuse(problems)
    return settings


def _values_of(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Take the options that are fields of `kind`; those of settings within it become mappings."""
    values: dict[str, Any] = {}
    for one in fields(kind):
        if one.name == "tiles":
            is_cut = options["tile"] is not None
            values["tiles"] = {"side": options["tile"], "overlap": options["overlap"]} if is_cut else None
        elif is_dataclass(one.type):
            values[one.name] = _values_of(one.type, options)
        elif one.name in options:
            # What is no option of this command keeps its default.
            values[one.name] = options[one.name]
    return values


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """Add options in the order in which --help is to list them."""
    for option in reversed(options):
        command = option(command)
    return command
