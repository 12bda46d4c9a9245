"""Resume an interrupted run: whether it is the same run, and what of it stands in the journal."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from pathlib import Path
from typing import Any

from grounded_seg.errors import ImageAccessError, UsageError
from grounded_seg.images.formats import LATER_ENDINGS
from grounded_seg.runs.journal import Journal
from grounded_seg.runs.manifest import Counts, ImageNames, Manifest

_LOG = logging.getLogger(__name__)

# Settings that change no result: where and in which form it is written, how the images were found (their names are
# compared), and what is done at a bad one.
_FREE_SETTINGS = {
    "output",
    "recursive",
    "resume",
    "overwrite",
    "on_error",
    "models",
    "results",
    "devices",
    "engine",
    "workers",
    "upload",
}
# Weights may have moved; their hash says whether they are the same.
_FREE_OF_WEIGHTS = {"path", "name", "revision"}
# What models run with that changes no result.
_FREE_OF_MODELS = {"allocator", "workers"}
_LOGITS_DTYPE = "float32"
_MAX_SHOWN, _N_BEFORE = 40, 10
"""Characters of a value in a message, and of these before the first that differs."""


@dataclass(frozen=True)
class Earlier:
    """What an interrupted run left in its folder."""

    manifest: Mapping[str, Any]
    counts: Counts
    """Of the lines that stay."""
    n_lines: int
    """Whole lines in the journal."""
    again: frozenset[int]
    """Indices of images whose files couldn't be read then, though they may now: they are asked again."""

    def is_finished(self, n_images: int) -> bool:
        """Tell whether nothing is left to do."""
        return self.manifest["exit_code"] is not None and self.n_lines == n_images and not self.again

    def same_models_named(self, now: Manifest) -> bool:
        """Tell whether weights, device and dtype are named as they were; then a finished run needs no other check."""
        # Versions before calibration had no such setting.
        was = {"calibration": None, **self.manifest["settings"]["models"]}
        return {**was, "offline": None} == {**now.as_json()["settings"]["models"], "offline": None}


def earlier_run(manifest: Mapping[str, Any], now: Manifest, names: Sequence[str], journal: Journal) -> Earlier:
    """Check that an earlier run was the same, as far as that is known without the models, and count its lines.

    A line that can't be read, and all behind it, are cut off.

    Args:
        manifest: What the run left in its `run.json`.
        now: What is asked for now.
        names: The images, in order.
        journal: What it wrote.

    Raises:
        UsageError: If it was another run, or the lines are of other images.
        OutputError: If the journal can't be read or changed.
    """
    folder = now.settings.output
    if manifest.get("merged") is not None:
        raise UsageError(
            f"{folder} was merged from several runs and can't be resumed; resume those runs, then merge them again"
        )
    if manifest.get("exit_code") is None:
        # Told before what can be mended, as this can't; a finished run needs no more answers.
        _refuse_rounded_logits(manifest, folder)
    _refuse_older_list(manifest, now, names)
    check_same(manifest, now, folder)
    _tell_if_moved(manifest, now)
    counts, n_lines, again = Counts(is_resumed=True), 0, set()
    for index, line in enumerate(journal.recovered_lines()):
        if index >= len(names) or line["file_name"] != names[index]:
            raise UsageError(
                f"line {index + 1} of {journal.path} is about {line['file_name']!r}, not the image of that index; "
                "start again with --overwrite, or name another folder with --output"
            )
        n_lines += 1
        if line["error"] == ImageAccessError.__name__:
            again.add(index)
        else:
            counts.add_line(line)
    return Earlier(manifest, counts, n_lines, frozenset(again))


def check_same(earlier: Mapping[str, Any], now: Manifest, folder: Path) -> None:
    """Refuse to resume a run that would have given other results.

    Args:
        earlier: The manifest that the run left.
        now: What is asked for now; without models, these aren't compared.
        folder: Of the run, for the message.

    Raises:
        UsageError: If prompts, images, settings, weights, device, dtype, threads or software differ; says which.
    """
    wanted = dict(comparable(now.as_json()))
    if now.models is not None:
        _refuse_rounded_logits(earlier, folder)
    try:
        was = dict(comparable(earlier))
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds a run of another version of grounded-seg ({error!r} in its run.json); "
            "start again with --overwrite, or name another folder with --output"
        ) from error
    if _is_before_kernels(earlier):
        wanted = {name: value for name, value in wanted.items() if not name.startswith("models kernels")}
    if now.models is None:
        was = {name: value for name, value in was.items() if not name.startswith("models")}
    differing = [
        "{} was {} and is {}".format(name, *shown_values(was.get(name), wanted.get(name)))
        for name in sorted(was.keys() | wanted.keys())
        if was.get(name) != wanted.get(name)
    ]
    if differing:
        # `eval` has no --overwrite.
        start_again = "start again with --overwrite, " if now.evaluation is None else ""
        raise UsageError(
            f"{folder} holds another run: {'; '.join(differing)}; use the same settings, {start_again}or name another "
            "folder with --output"
        )
    if now.models is not None and (_is_before_float32_logits(earlier) or _is_before_kernels(earlier)):
        _LOG.warning(
            "this run was begun with an earlier version of grounded-seg: the numbers of the images that follow may "
            "differ from its own in the last digits, and by more where an image has a colour profile; to have all from "
            "one version, stop it and use --overwrite"
        )


def _is_before_float32_logits(earlier: Mapping[str, Any]) -> bool:
    """Tell whether a run was begun by a version that had no `logits_dtype`: its logits were in its `dtype`."""
    models = earlier.get("models")
    return isinstance(models, Mapping) and "logits_dtype" not in models


def _is_before_kernels(earlier: Mapping[str, Any]) -> bool:
    """Tell whether a run was begun by a version that had one way for each product, and so didn't name it."""
    models = earlier.get("models")
    return isinstance(models, Mapping) and "kernels" not in models


def _refuse_rounded_logits(earlier: Mapping[str, Any], folder: Path) -> None:
    """Refuse a run of an earlier version whose logits were rounded; no setting brings them back."""
    if _is_before_float32_logits(earlier) and (dtype := earlier["models"].get("dtype")) != _LOGITS_DTYPE:
        raise UsageError(
            f"{folder} holds a run of an earlier version of grounded-seg, whose logits were {dtype}, where they are "
            f"{_LOGITS_DTYPE} now; start again with --overwrite, or name another folder with --output"
        )


def _refuse_older_list(earlier: Mapping[str, Any], now: Manifest, names: Sequence[str]) -> None:
    """Refuse a run whose folder holds more images only because more kinds of files count as images now."""
    later = [name for name in names if name.lower().endswith(tuple(f".{one}" for one in LATER_ENDINGS))]
    was = earlier.get("images")
    if not later or not isinstance(was, Mapping) or was.get("count") != len(names) - len(later):
        return
    others = set(later)
    if was.get("sha256") == ImageNames.of(now.images.root, [one for one in names if one not in others]).sha256:
        raise UsageError(
            f"{now.settings.output} holds a run from before HEIC and AVIF files counted as images, and there are "
            f"{len(later)} of them, such as {min(later)!r}; move them away to resume it, start again with --overwrite, "
            "or name another folder with --output"
        )


def _tell_if_moved(earlier: Mapping[str, Any], now: Manifest) -> None:
    """Warn where the images lie in another folder than when the run was begun: moved, or others of the same names."""
    was, wanted = earlier["images"].get("root"), str(now.images.root)
    if was not in (None, wanted):
        _LOG.warning(
            "this run was begun with the images in %s and is resumed with those in %s, which have the same names; "
            "if they aren't the same images, stop it and use --overwrite",
            was,
            wanted,
        )


def comparable(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name all that results depend on, as the options are named."""
    # Their order counts: it is that of the categories.
    yield "prompts", list(manifest["prompts"].items())
    yield "rules of the classes", manifest.get("rules")
    yield "number of images", manifest["images"]["count"]
    yield "list of images", manifest["images"]["sha256"]
    if manifest.get("shard") is not None:
        yield "list of all shards", manifest["shard"]["whole"]["sha256"]
    for name, value in manifest["settings"].items():
        if name not in _FREE_SETTINGS:
            yield from _leaves(name, value)
    if manifest.get("evaluation") is not None:
        yield "data set", manifest["evaluation"]["sha256"]
        yield "absent", manifest["evaluation"]["absent"]
    for name, value in (manifest["models"] or {}).items():
        if name in _FREE_OF_MODELS:
            continue
        if name == "device":
            # Any card of the same kind gives the same results.
            value = value.partition(":")[0]
        if isinstance(value, Mapping):
            value = {key: one for key, one in value.items() if key not in _FREE_OF_WEIGHTS}
        yield from _leaves(f"models {name}", value)
    if _is_before_float32_logits(manifest):
        yield "models logits-dtype", manifest["models"]["dtype"]


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{name} {key}", one)
    else:
        yield name.replace("_", "-"), value


def shown_values(first: Any, second: Any) -> tuple[str, str]:
    """Write two values of a manifest that differ as JSON; of long ones the part from where they begin to differ.

    >>> shown_values(0.2, {"red car": "car", "traffic light": "light", "ball": "ball"})
    ('0.2', '{"red car": "car", "traffic light": "lig...')
    """
    texts = [json.dumps(value, ensure_ascii=False) for value in (first, second)]
    # Without an end, where one is the beginning of the other.
    pairs = zip_longest(*texts)
    n_same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = max(0, n_same - _N_BEFORE) if max(map(len, texts)) > _MAX_SHOWN else 0
    one, other = (
        f"{'...' if start else ''}{text[start : start + _MAX_SHOWN]}{'...' if len(text) > start + _MAX_SHOWN else ''}"
        for text in texts
    )
    return one, other
