"""Options that several commands share, named after the settings' fields, and the settings built from them."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click

from grounded_seg.errors import UsageError
from grounded_seg.setting_types import UpToHalf, base_type, convert_values, refuse
from grounded_seg.settings import DetectSettings, ModelSettings, RunSettings, SegmentSettings, TileSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings")
_Option = Callable[[Any], Any]


class _LocalPath(click.Path):
    """A path on this disk; an address is refused while all its slashes are there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Make a `Path` of the text."""
        if isinstance(value, str) and "://" in value:
            # This imports numpy, which would slow --help down.
            from grounded_seg.images.given import refuse_address

            can_upload = ctx is not None and any(one.name == "upload" for one in ctx.command.params)
            if can_upload and param is not None and param.name == "output":
                refuse_address(value, f"give a folder on this disk, and copy the finished run with --upload {value}")
            refuse_address(value)
        return super().convert(value, param, ctx)


class _TileSide(click.ParamType):  # type: ignore[type-arg]  # has an argument from click 8.5 on
    """Pixels, or the word auto."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Make a number of the text, unless it is the word."""
        if isinstance(value, str) and value.strip().casefold() == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no side of a tile; give pixels, or auto.", param, ctx)


PATH = _LocalPath(path_type=Path)
COUNT = click.IntRange(min=0)


class EnumChoice(click.Choice[Any]):
    """A choice among an enum's values, in any case; click by itself would take its names."""

    def normalize_choice(self, choice: Any, ctx: click.Context | None) -> str:  # noqa: ARG002  (click's signature)
        """The text that stands for a member on the command line."""
        return str(choice).casefold()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Find the member; several in one text are refused with the option repeated, where it takes several."""
        if isinstance(value, str) and "," in value and param is not None and param.multiple:
            several = " ".join(f"{param.opts[-1]} {one.strip()}" for one in value.split(","))
            self.fail(f"{value!r} is none of the choices; repeat the option: {several}", param, ctx)
        return super().convert(value, param, ctx)


def click_type(kind: Any) -> Any:
    """Give the option type of a field's type; lists are read from one text, and None is a switch."""
    kind = base_type(kind)
    if kind is bool:
        return None
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return EnumChoice(kind)
    return {int: click.INT, float: click.FLOAT, Path: PATH}.get(kind, click.STRING)


def option_of(settings: type, name: str, text: str, *flags: str, **more: Any) -> _Option:
    """Make the option of a settings field, with the field's type and default, and its name if no flags are given."""
    field = next(one for one in fields(settings) if one.name == name)
    default = None if field.default is MISSING else field.default
    values: dict[str, Any] = {"type": click_type(field.type), "default": default, "show_default": True}
    if field.type is bool:
        values = {"is_flag": True, "default": default, "show_default": bool(default)}
    elif isinstance(default, StrEnum):
        values["default"] = str(default)
    elif field.default is MISSING:
        # Given as None, it would be a default, and the option never missing.
        del values["default"]
    return click.option(name, *(flags or [f"--{name.replace('_', '-')}"]), help=text, **values | more)


debug_option = click.option(
    "--debug", is_flag=True, help="Show the traceback of an error, and the libraries' messages."
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
offline_option = option_of(ModelSettings, "offline", "Download nothing; use only what is on this disk.")
beams_option = option_of(DetectSettings, "beams", "Number of beams when the answer is generated; 1 is greedy decoding.")
batch_size_option = option_of(RunSettings, "batch_size", "Number of images that go through the models together.")
results_option = option_of(
    RunSettings, "results", "Form of the results; parquet writes results.parquet and images.parquet beside COCO's file."
)
max_pixels_option = option_of(RunSettings, "max_pixels", "Refuse images of more pixels than this, before decoding.")


def _preset_option(**more: Any) -> _Option:
    return option_of(
        ModelSettings,
        "preset",
        "Named set of weights: demo (included, for rendered scenes only), fast, base, base-ft, large or large-ft.",
        envvar="GROUNDED_SEG_PRESET",
        show_envvar=True,
        **more,
    )


_OWN_DETECTOR = (
    option_of(
        ModelSettings,
        "detector",
        "Florence-2 to use instead of the preset's: a folder, or a Hugging Face id, where ID@COMMIT fixes the version.",
        metavar="ID|DIR",
    ),
    option_of(
        ModelSettings,
        "adapter",
        "LoRA adapter to use instead of the preset's; none for no adapter.",
        metavar="ID|DIR|none",
    ),
)
_SEGMENTER = option_of(
    ModelSettings, "segmenter", "SAM, SAM-HQ or SAM 2 to use instead of the preset's.", metavar="ID|FILE|DIR"
)
_WHERE_IT_RUNS = (
    option_of(ModelSettings, "device", "Device that the models run on: auto, cpu, cuda, cuda:N or mps."),
    option_of(ModelSettings, "dtype", "Dtype of the models; auto is the fastest that the device supports in hardware."),
    offline_option,
    option_of(ModelSettings, "allow_base_mismatch", "Load an adapter even if it was trained on another base model."),
)
_CALIBRATION = option_of(
    ModelSettings,
    "calibration",
    "File of calibrate: scores become the probability that a box is right, and so do thresholds. One made with other "
    "weights is refused, but with --allow-base-mismatch.",
    metavar="FILE",
)
_DETECT = {
    "task": "Florence-2 task for the prompt: all objects a phrase names, one class by name, or the one object meant.",
    "score_threshold": "",
    "nms": "Scope of duplicate removal (NMS): within a class, across classes, or none.",
    "iou_threshold": "Drop a box whose IoU with a better one is above this.",
    "box_containment_threshold": "Drop the lower-scored of two boxes if more than this share of the smaller one lies "
    "inside the other; 1 is off.",
    "max_detections": "Maximum number of boxes per image and prompt; the best by score are kept.",
}
_SEGMENT = {
    "multimask": "Predict three masks per box and keep the one with the highest predicted IoU.",
    "clean": "Keep only the largest connected part of each mask, and fill its holes.",
    "min_area": "Drop masks of fewer pixels than this.",
    "outside_share": "Mark masks with more than this share of their pixels outside their box.",
    "mask_iou_threshold": "Drop a mask whose IoU with a better one of the same prompt is above this; 1 is off.",
    "containment_threshold": "Drop the lower-scored of two masks of a prompt if more than this share of the smaller "
    "one lies inside the other; 1 is off.",
    "compile": "Compile the image encoders of both stages with torch.compile: up to minutes before the first image, "
    "faster after that.",
}
_TILE = (
    option_of(
        TileSettings,
        "side",
        "Also search large images in tiles of this side in pixels, for small objects; auto takes sides that fit the "
        "detector.",
        "--tile",
        metavar="PX|auto",
        type=_TileSide(),
    ),
    option_of(TileSettings, "overlap", "Overlap of neighbouring tiles, as a share of their side, at most 0.5."),
)


def _together(*options: _Option) -> _Option:
    """Make one decorator that adds options in the order in which --help is to list them."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_ALL_BUT_PRESET = (*_OWN_DETECTOR, _SEGMENTER, *_WHERE_IT_RUNS, _CALIBRATION)
model_options = _together(_preset_option(), *_ALL_BUT_PRESET)
model_options_without_default = _together(_preset_option(show_default=False), *_ALL_BUT_PRESET)
"""For a command that loads models only where a preset or a detector is named."""
detector_options = _together(_preset_option(), *_OWN_DETECTOR, *_WHERE_IT_RUNS)
worker_options = _together(
    option_of(
        RunSettings,
        "devices",
        "Devices of this machine that share the images, a process each: cuda:0,cuda:1 or all; instead of --device.",
        metavar="DEVICE,...|all",
    ),
    option_of(RunSettings, "engine", "What runs the models: this machine, or workers of a Ray cluster."),
    option_of(RunSettings, "workers", "Number of Ray workers; by default one per GPU, or one per node without GPUs."),
)


def stage_options(threshold_text: str) -> _Option:
    """Options of `DetectSettings`, with what the score threshold means here, `SegmentSettings` and `TileSettings`."""
    detect = _DETECT | {"score_threshold": threshold_text}
    return _together(
        *(option_of(DetectSettings, name, text) for name, text in detect.items()),
        beams_option,
        *(option_of(SegmentSettings, name, text) for name, text in _SEGMENT.items()),
        *_TILE,
    )


def settings_from(kind: type[_Settings], options: Mapping[str, Any]) -> _Settings:
    """Settings, and those within them, from the options named as their fields; all that is wrong is one error."""
    # The overlap is checked even where nothing is cut.
    unused = {"overlap": options["overlap"]} if options.get("side", 1) is None else {}
    _, problems = convert_values(unused, {"overlap": UpToHalf})
    try:
        settings = kind(**_values_of(kind, options))
    except UsageError as error:
        problems.append(str(error))
    refuse([_as_options(one) for one in problems])
    return settings


@contextmanager
def problems_as_options() -> Iterator[None]:
    """Name settings that are refused as the options of this command that they were given by."""
    try:
        yield
    except UsageError as error:
        raise UsageError(_as_options(str(error))) from error


def _as_options(problems: str) -> str:
    context = click.get_current_context(silent=True)
    known = {name for one in context.command.params for name in one.opts} if context else set()

    def named(found: re.Match[str]) -> str:
        return f"{found[1]}--{found[2]} is " if f"--{found[2]}" in known else found[0]

    return re.sub(r"(^|; )([a-z][a-z-]*) is ", named, problems)


def refuse_fractions(split: str) -> None:
    """Refuse a split in shares of 1, with the percent that they are."""
    try:
        percents = [round(100 * float(share)) for share in split.split("/")]
    except (ValueError, OverflowError):
        percents = []
    if "." in split and len(percents) in (2, 3) and sum(percents) == 100:
        raise UsageError(f"--split is {split}, and takes whole numbers; write {'/'.join(map(str, percents))}")


def _values_of(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Take the options that are fields of `kind`; those of settings within it become mappings."""
    # What is no option of this command keeps its default.
    values = {one.name: options[one.name] for one in fields(kind) if one.name in options}
    for one in fields(kind):
        if is_dataclass(one.type):
            values[one.name] = _values_of(one.type, options)
        elif one.name == "tiles" and options["side"] is not None:
            values["tiles"] = _values_of(TileSettings, options)
    return values
