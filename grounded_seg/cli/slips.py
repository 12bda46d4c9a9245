"""The usual slips on the command line, and what was probably meant."""

import os
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType

import click

from grounded_seg.errors import InputError, OutputError, UsageError

_WORDS_FOR: Mapping[str, str] = MappingProxyType(
    {
        "--score-threshold": "conf confidence conf-thres conf-threshold thresh threshold score min-score box-threshold "
        "text-threshold t c",
        "--iou-threshold": "iou iou-thres nms-threshold nms-thres",
        "--max-detections": "max-det max-dets limit topk top-k",
        "--output": "out out-dir outdir output-dir output-path save-dir save-path save-to dest destination target "
        "project results o",
        "--detector": "weights florence",
        "--segmenter": "sam sam-model sam-checkpoint",
        "--adapter": "lora lora-path peft",
        "--preset": "model model-name model-type model-id checkpoint ckpt variant m",
        "--device": "gpu gpus cuda cpu mps d",
        "--dtype": "precision half fp16 bf16 fp32 float16 bfloat16 amp",
        "--batch-size": "batch bs b",
        "--boxes-only": "no-mask no-masks box-only detect-only",
        "--tile": "tiles tile-size slice slice-size sahi",
        "--overwrite": "force exist-ok f y",
        "--save": "visualize visualise vis draw plot save-txt save-img",
        "--epochs": "epoch num-epochs n-epochs e",
        "--lr": "learning-rate lr0",
        "--to": "format fmt",
        "--images": "image img image-dir images-dir img-dir data-dir",
        "--prompts": "prompt text classes class",
        "--debug": "verbose v",
    }
)
"""What other tools call an option. What a command hasn't is looked for further down."""
_WORDS_FOR_ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "text prompt prompts text-prompt query caption class classes p q",
        "text": "text prompt prompts text-prompt query caption p q",
        "paths": "image images img imgs image-path image-dir input inputs input-dir source src path paths file files "
        "folder dir data i s",
        "image": "image images img image-path input source src path file i s",
        "ground_truth": "gt ground-truth annotations ann input source data coco i",
        "file": "input source data coco annotations gt i",
        "dataset": "data data-set input source i",
    }
)
"""Likewise, of what is given by its place alone."""


def explain_option(error: click.NoSuchOption, context: click.Context) -> str:
    """The message for an option that a command hasn't: its own for it, or the argument that was meant."""
    word, command = error.option_name.lstrip("-").replace("_", "-").lower(), context.command
    known = {name for one in command.params if isinstance(one, click.Option) for name in one.opts}
    other = next((name for name, words in _WORDS_FOR.items() if name in known and word in words.split()), None)
    meant = f"--{word}" if f"--{word}" in known else other
    # click up to 8.3 words it another way.
    missing = f"No such option {error.option_name!r}."
    if meant is not None:
        return f"{missing} Did you mean {meant}?"
    for one in command.params:
        if isinstance(one, click.Argument) and word in _WORDS_FOR_ARGUMENTS.get(one.name or "", "").split():
            usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
            return f"{missing} {one.human_readable_name.strip('.')} is given without an option: {usage}"
    return error.format_message().replace(error.message, missing)


def explain_missing(error: click.MissingParameter, context: click.Context) -> str:
    """The message for an argument that is missing: of a run, perhaps its prompt rather than its paths."""
    given = context.params.get("prompt")
    needs_path = error.param is not None and error.param.name == "paths"
    if needs_path and isinstance(given, str) and (os.path.exists(given) or _looks_like_image(given)):
        return f"PROMPT is {given!r}, and PATH is missing; PROMPT comes first: {_command('red car', [given])}."
    return error.format_message()


def check_order(prompt: str, paths: Sequence[str]) -> None:
    """Refuse a prompt and paths in the wrong order, or a prompt without quotes, with the command that was meant.

    Raises:
        InputError: If a path isn't there, and it looks as if one of these were the reason.
    """
    missing = [path for path in paths if not (_is_there(path) or _looks_like_image(path))]
    if not missing:
        return
    there = [path for path in paths if path not in missing]
    first = f"no file or folder is at {missing[0]!r}"
    if _is_there(prompt) or _looks_like_image(prompt):
        if not prompt.startswith("@"):
            raise InputError(f"{first}; PROMPT comes before PATH: {_command(' '.join(missing), [prompt, *there])}")
    elif there and " " not in prompt and missing == list(takewhile(lambda one: one in missing, paths)):
        # A prompt with a space was quoted: the path is misspelt.
        words = " ".join([prompt, *missing])
        raise InputError(f"{first}; a prompt of several words needs quotes: {_command(words, there)}")


def check_output_files(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuse output files that would replace an input or each other, or that can't be written, before the work.

    Args:
        outputs: By option, None for one that wasn't given.
        inputs: By option or argument, likewise; of a folder those files count that a run writes.

    Raises:
        UsageError: If an output is an input or another output, or a folder.
        OutputError: If it can't be written.
    """
    from grounded_seg.runs.folder import RunFolder

    taken = {name: Path(os.path.realpath(path)) for name, path in inputs.items() if path is not None}
    for name, given in outputs.items():
        if given is None:
            continue
        path = Path(os.path.realpath(given))
        for other, used in taken.items():
            if path in (used, *RunFolder(used).files):
                raise UsageError(f"{name} {given} would replace a file of {other}; name another file")
        taken[name] = path
        if os.path.isdir(path):
            raise UsageError(f"{name} {given} is a folder; name a file")
        folder = next(one for one in path.parents if os.path.lexists(one))
        if not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
            raise OutputError(
                f"{given} can't be written in {folder}; get permission there, or name another file with {name}"
            )


def hint_about(prompt: str, paths: Sequence[str], asked: Sequence[str] = ()) -> str | None:
    """The one hint about a prompt that is asked as it is written, though something else may be meant; None for none.

    `asked` are the prompts of a file that `prompt` names.
    """
    # These import numpy, which would slow --help down.
    from grounded_seg.detect.prompts import listed_in

    if _looks_like_image(prompt) and os.path.exists(prompt):
        return f"PROMPT is {prompt!r}, which is a file; PROMPT comes first: {_command('red car', [prompt, *paths])}"
    things = listed_in(prompt)
    if things:
        together = "; ".join(things)
        return f'{prompt!r} is asked as one prompt; if it lists several things, separate them: "{together}"'
    if prompt.strip().startswith("@") and (lists := next(filter(_seems_several, asked), None)):
        return f"{lists!r} is asked as one prompt; if it lists several things, give each a line in {prompt.strip()[1:]}"
    return None


def _seems_several(prompt: str) -> bool:
    from grounded_seg.detect.prompts import listed_in

    return ";" in prompt or bool(listed_in(prompt))


def _is_there(path: str) -> bool:
    """Whether a path may be right: lists, patterns and addresses are checked elsewhere."""
    from grounded_seg.images.given import given_from

    return os.path.lexists(path) or "://" in path or not isinstance(given_from(path), os.PathLike)


def _looks_like_image(path: str) -> bool:
    from grounded_seg.images.formats import IMAGE_ENDINGS

    return path.lower().endswith(tuple(f".{ending}" for ending in IMAGE_ENDINGS))


def _command(prompt: str, paths: Sequence[str]) -> str:
    quoted = f'"{prompt}"' if prompt.replace(" ", "").isalnum() else shlex.quote(prompt)
    return f"grounded-seg run {quoted} {shlex.join(paths)}"
