"""Options that several commands share, named as the fields of the settings they fill."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import click

from grounded_seg.settings import (
    DetectSettings,
    GroundingTask,
    ModelSettings,
    Precision,
    SegmentSettings,
    SuppressionScope,
    TileSettings,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings", ModelSettings, DetectSettings, SegmentSettings)


class EnumChoice(click.Choice[Any]):
    """A choice among an enum's values; click by itself would take its names."""

    def normalize_choice(self, choice: Any, ctx: click.Context | None) -> str:  # noqa: ARG002  (click's signature)
        """Give the text that stands for a member on the command line."""
        return str(choice)


_WHICH_DETECTOR = (
    click.option(
        "--preset",
        default=ModelSettings.preset,
        envvar="GROUNDED_SEG_PRESET",
        show_default=True,
        show_envvar=True,
        help="Weights that belong together: demo (comes along, rendered scenes only), base, base-ft, large or "
        "large-ft.",
    ),
    click.option(
        "--detector",
        metavar="ID|DIR",
        help="A Florence-2 instead of the preset's; here and below, ID@COMMIT takes that state of the hub.",
    ),
    click.option(
        "--adapter", metavar="ID|DIR|none", help="A LoRA adapter instead of the preset's; none switches it off."
    ),
)
_SEGMENTER = click.option("--segmenter", metavar="ID|FILE|DIR", help="A SAM, SAM-HQ or SAM 2 instead of the preset's.")
_WHERE_IT_RUNS = (
    click.option("--device", default=ModelSettings.device, show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--dtype",
        type=EnumChoice(Precision),
        default=ModelSettings.dtype.value,
        show_default=True,
        help="Number format of the models; auto takes the fastest that the device really has.",
    ),
    click.option("--offline", is_flag=True, help="Fetch nothing; use only what is on this disk."),
    click.option(
        "--allow-base-mismatch", is_flag=True, help="Load an adapter that says it was trained on another base."
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
            help="How the prompt is asked.",
        ),
        click.option(
            "--score-threshold",
            type=float,
            default=DetectSettings.score_threshold,
            show_default=True,
            help=threshold_help,
        ),
        click.option(
            "--nms",
            type=EnumChoice(SuppressionScope),
            default=DetectSettings.nms.value,
            show_default=True,
            help="Among which boxes duplicates are looked for.",
        ),
        click.option(
            "--iou-threshold",
            type=float,
            default=DetectSettings.iou_threshold,
            show_default=True,
            help="Overlap above which the lower-scored box is a duplicate.",
        ),
        click.option(
            "--box-containment-threshold",
            type=float,
            default=DetectSettings.box_containment_threshold,
            show_default=True,
            help="Likewise, for the share of the smaller box within the larger; 1 keeps all.",
        ),
        click.option(
            "--max-detections",
            type=int,
            default=DetectSettings.max_detections,
            show_default=True,
            help="Boxes kept per image and prompt, the best by score.",
        ),
        click.option(
            "--beams",
            type=int,
            default=DetectSettings.beams,
            show_default=True,
            help="Beam width of the answer; 1 is greedy.",
        ),
    )


def segment_options(command: _Command) -> _Command:
    """Add the options of `SegmentSettings`."""
    return _with(
        command,
        click.option(
            "--multimask", is_flag=True, help="Make three masks for each box and take the one that promises most."
        ),
        click.option("--clean", is_flag=True, help="Keep each mask's largest part only, and fill its holes."),
        click.option(
            "--min-area",
            type=int,
            default=SegmentSettings.min_area,
            show_default=True,
            help="Drop masks of fewer pixels.",
        ),
        click.option(
            "--outside-share",
            type=float,
            default=SegmentSettings.outside_share,
            show_default=True,
            help="Mark masks with a larger share of their pixels outside their box.",
        ),
        click.option(
            "--mask-iou-threshold",
            type=float,
            default=SegmentSettings.mask_iou_threshold,
            show_default=True,
            help="Overlap above which the lower-scored mask of a prompt is a duplicate; 1 keeps all.",
        ),
        click.option(
            "--containment-threshold",
            type=float,
            default=SegmentSettings.containment_threshold,
            show_default=True,
            help="Likewise, for the share of the smaller mask within the larger; 1 keeps all.",
        ),
        click.option(
            "--compile",
            is_flag=True,
            help="Send both stages' image encoders through torch.compile: up to minutes before the first image, "
            "faster then.",
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
            help="Look at larger images in tiles of this side, too: finds small objects.",
        ),
        click.option(
            "--overlap",
            type=float,
            default=TileSettings.overlap,
            show_default=True,
            help="Share of a tile that its neighbour shows too.",
        ),
    )


def tiles_from(options: Mapping[str, Any]) -> TileSettings | None:
    """Take how to cut images into tiles; None where that isn't asked for.

    Raises:
        UsageError: If a value is out of range.
    """
    # The overlap is checked even where nothing is cut.
    is_cut = options["tile"] is not None
    tiles = TileSettings(side=options["tile"] if is_cut else 1, overlap=options["overlap"])
    return tiles if is_cut else None


def settings_from(kind: type[_Settings], options: Mapping[str, Any]) -> _Settings:
    """Take from a command's options those that are fields of `kind`.

    Raises:
        UsageError: If a value is out of range.
    """
    return kind(**{field.name: options[field.name] for field in fields(kind)})


def _with(command: _Command, *options: Callable[[_Command], _Command]) -> _Command:
    """Add options in the order in which --help is to list them."""
    for option in reversed(options):
        command = option(command)
    return command
