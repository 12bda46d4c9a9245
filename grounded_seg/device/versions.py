"""Versions of the libraries: those that are installed, and those that were tested."""

import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

_LOG = logging.getLogger(__name__)

TESTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("2.10", "2.15"),
        "torchvision": ("0.25", "0.29"),
        "transformers": ("5.20", "5.24"),
        "peft": ("0.18", "0.21"),
        "accelerate": ("1.1", "1.15"),
        "huggingface_hub": ("1.31", "2.4"),
        "opencv-python": ("5.0", "5.0"),
        "numpy": ("2.0", "2.5"),
        "pillow": ("11.3", "13.0"),
        "pillow-heif": ("1.0", "1.8"),
        "pycocotools": ("2.0.8", "2.0.12"),
        "segment-anything": ("1.0", "1.0"),
    }
)
"""The lowest version that works, and the newest that was tested."""


def installed(distribution: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version, to compare.

    >>> numbers("2.14.1+cpu"), numbers("5.24.0rc1") > numbers("5.13")
    ((2, 14, 1), True)
    """
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def is_newer_than_tested(distribution: str, here: str) -> bool:
    """Whether a version is beyond the newest that was tested; its last numbers, if that has fewer, don't count.

    >>> is_newer_than_tested("transformers", "5.24.3"), is_newer_than_tested("transformers", "5.25.0")
    (False, True)
    """
    newest = numbers(TESTED[distribution][1])
    return numbers(here)[: len(newest)] > newest


@cache
def warn_of_untested(distribution: str) -> None:
    """Warn, once a process, of a library that is newer than all that were tested."""
    here = installed(distribution)
    if here is not None and is_newer_than_tested(distribution, here):
        newest = TESTED[distribution][1]
        _LOG.warning(
            "%s %s is newer than %s, the newest that was tested; if the model can't be loaded or finds nothing: "
            "pip install '%s==%s.*'",
            *(distribution, here, newest, distribution, newest),
        )
