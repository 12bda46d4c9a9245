"""Read a JSON file that a user names, or say in one line what is wrong with it, where, and what to do."""

import json
from pathlib import Path
from typing import Any

from grounded_seg.errors import InputError


def read_json(path: Path) -> Any:
    """Read a file of JSON, with or without a byte order mark.

    Raises:
        InputError: If it can't be read or isn't JSON; names the line and column.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty; export it again")
    start = len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}:{error.colno}: this is not JSON ({error.msg}); export it again"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply to be a COCO file; export it again") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}; replace it by a number") from error
    rest = text[end:]
    if rest.strip():
        line = text.count("\n", 0, len(text) - len(rest.lstrip())) + 1
        raise InputError(
            f"{path}:{line}: more text follows after the end of the JSON; delete it, or export the file again"
        )
    return value


def read_text(path: Path) -> str:
    """Read a file of UTF-8.

    Raises:
        InputError: If there is no such file, it can't be read, or isn't UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"no file is at {path}; check the path") from error
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}); check that it is a file and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is no UTF-8; save the file as UTF-8") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} stands where a number belongs")
