"""Go on with a run that was cut off: whether it is the same run, and what of it stands in the journal."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grounded_seg.errors import UsageError
from grounded_seg.images.find import FoundImages
from grounded_seg.runs.counts import Tally
from grounded_seg.runs.journal import Journal
from grounded_seg.runs.manifest import Manifest

_LOG = logging.getLogger(__name__)

# Settings that change no result: where it is written, how the images were found (their names are compared), and what
# is done at a bad one.
_FREE_SETTINGS = {"output", "recursive", "resume", "overwrite", "on_error", "models"}
# Weights may have moved; their hash says whether they are the same.
_FREE_OF_WEIGHTS = {"path", "name", "revision"}
_MAX_SHOWN = 40
"""Characters of a value in a message."""


def check_same(earlier: Mapping[str, Any], now: Manifest, folder: Path) -> None:
    """Refuse to go on with a run that would have given other results.

    Args:
        earlier: The manifest that the run left.
        now: What is asked for now; without models, these aren't compared.
        folder: Of the run, for the message.

    Raises:
        UsageError: If prompts, images, settings, weights, device, number format, threads or software differ; says
            which.
    """
    wanted = dict(_comparable(now.as_json()))
    try:
        was = dict(_comparable(earlier))
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds a run of another version of grounded-seg ({error!r} in its run.json); "
            "start again with --overwrite, or name another folder with --output"
        ) from error
    if now.models is None:
        was = {name: value for name, value in was.items() if not name.startswith("models")}
    differing = [
        f"{name} was {_shown(was.get(name))} and is {_shown(wanted.get(name))}"
        for name in sorted(was.keys() | wanted.keys())
        if was.get(name) != wanted.get(name)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds another run: {'; '.join(differing)}; ask as that run did, start again with --overwrite, "
            "or name another folder with --output"
        )


def tell_if_moved(earlier: Mapping[str, Any], now: Manifest) -> None:
    """Warn where the images lie in another folder than when the run was begun: moved, or others of the same names.

    Args:
        earlier: The manifest that the run left, of the same run as far as `check_same` can tell.
        now: What is asked for now.
    """
    was, wanted = earlier["images"].get("root"), str(now.images.root)
    if was not in (None, wanted):
        _LOG.warning(
            "this run was begun with the images in %s and goes on with those in %s, which have the same names; "
            "if they aren't the same images, stop it and use --overwrite",
            was,
            wanted,
        )


def tally_of(journal: Journal, found: FoundImages) -> Tally:
    """Count what an earlier run left in the journal, and cut off what it left behind the last whole line.

    Raises:
        UsageError: If the lines are of other images.
        OutputError: If the journal can't be read or changed.
    """
    tally = Tally(is_resumed=True)
    for line in journal.recovered_lines():
        place = tally.n_images
        if place >= len(found.file_names) or line["file_name"] != found.file_names[place]:
            raise UsageError(
                f"line {place + 1} of {journal.path} is about {line['file_name']!r}, out of turn; "
                "start again with --overwrite, or name another folder with --output"
            )
        tally.add_line(line)
    return tally


def _comparable(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name all that results depend on, as the options are named."""
    # Their order counts: it is that of the categories.
    yield "prompts", list(manifest["prompts"].items())
    yield "number of images", manifest["images"]["count"]
    yield "list of images", manifest["images"]["sha256"]
    for name, value in manifest["settings"].items():
        if name not in _FREE_SETTINGS:
            yield from _leaves(name, value)
    for name, value in (manifest["models"] or {}).items():
        if isinstance(value, Mapping):
            value = {key: one for key, one in value.items() if key not in _FREE_OF_WEIGHTS}
        yield from _leaves(f"models {name}", value)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _leaves(f"{name} {key}", one)
    else:
        yield name.replace("_", "-"), value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
