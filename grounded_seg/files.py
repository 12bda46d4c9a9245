"""Files that are written whole or not at all, locks between processes, and full disks as errors of one line."""

import errno
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from grounded_seg.errors import OutputError, UsageError

if sys.platform != "win32":
    import fcntl

_LOG = logging.getLogger(__name__)
UNFINISHED = ".part"
"""Ends the names of hidden files and folders that are being written."""
MAX_NAME_BYTES = 255
"""Of one part of a path, on every common file system."""
_ASKED_S = 0.2
ANOTHER_FOLDER = "another folder with --output"


@contextmanager
def as_output_error(what: Path | str = "the results", instead: str = ANOTHER_FOLDER) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into an `OutputError` of one line.

    `what` stands in for errors that don't name a file; `instead` is what a user could name to have it elsewhere.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{error.filename or what} can't be written ({error.strerror or error}); "
            f"make room or get permission there, or name {instead}"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written whole or not at all, also where the power fails; its folder must exist.

    The bytes go into a hidden file beside it, which takes its place at the end of the block. A block that fails leaves
    an older file as it was. Of two processes that write a file at the same time, the second gets an `OSError`.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    is_whole = False
    try:
        with _claimed(unfinished):
            try:
                with unfinished.open("wb") as file:
                    yield file
                    file.flush()
                    # Before the new name is: else the old file could be gone, and the new one empty.
                    os.fsync(file.fileno())
                unfinished.replace(path)
                is_whole = True
            finally:
                # The next of that name may be another process's.
                if not is_whole:
                    unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename == str(unfinished):
            # What a user named is told, not the hidden file.
            error.filename = str(path)
        raise


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Keep other processes away from a file, which is made if it isn't there, for the block."""
    if sys.platform == "win32":
        # An open file can't be renamed there, nor replaced by another process.
        yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock_at_once(descriptor, path)
            # Another process may just have given it its name.
            if _is_file_of(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _lock_at_once(descriptor: int, path: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(errno.EBUSY, "another process is writing it", str(path)) from error
    except OSError:
        # Some network file systems know no locks.
        return


def _is_file_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str, instead: str = ANOTHER_FOLDER) -> None:
    """Write a text as UTF-8, whole or not at all, with the errors of `as_output_error`."""
    with as_output_error(path, instead), whole_file(path) as file:
        # What a file name can hold and UTF-8 can't is written as an escape.
        file.write(text.encode("utf-8", errors="backslashreplace"))


class Lock:
    """A lock that this process holds until it is released or the process ends, however it ends."""

    def __init__(self, path: Path, in_use: str, instead: str = ANOTHER_FOLDER) -> None:
        """Take the lock, whose file is there as long as it is held; `instead` is as in `as_output_error`.

        Raises:
            UsageError: With `in_use` as its message, if another process holds it.
            OutputError: If the file can't be made.
        """
        self._path = path
        self._lock = FileLock(path)
        with as_output_error(path, instead):
            try:
                # Longer than `is_locked` holds it.
                self._lock.acquire(timeout=_ASKED_S, poll_interval=_ASKED_S / 4)
            except Timeout as error:
                raise UsageError(in_use) from error
            except (OSError, NotImplementedError) as error:
                if not path.exists():
                    raise
                _LOG.warning("%s can't be locked (%s); make sure that no other process writes there", path, error)
        if not path.exists():
            # Another process has just released it: what was locked is the file that it took away.
            self._lock.release()
            raise UsageError(in_use)

    def release(self) -> None:
        """Give the lock up and take its file away."""
        # While it is still held, so that nobody's file is taken; some systems refuse, and it stays there then.
        with suppress(OSError):
            self._path.unlink()
        self._lock.release()


def is_locked(path: Path) -> bool | None:
    """Tell whether a process holds the lock of this file; None where that can't be told, as without permission.

    It is taken for an instant to find out, which `Lock` waits for.
    """
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None
    lock.release()
    return False


@contextmanager
def one_process_at_a_time(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this file for the block, after every other process has given it up.

    `wait` is called again and again while another process holds it. A file system that knows no locks is used without.
    """
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            wait()
            continue
        except (OSError, NotImplementedError) as error:
            if not path.exists():
                raise
            _LOG.warning("%s can't be locked (%s); make sure that no other process writes there", path, error)
        if path.exists():
            break
        # Another process has just released it: what was locked is the file that it took away.
        lock.release()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def check_new_folder(folder: Path) -> None:
    """Refuse to write into what is there already, as a `UsageError`; an empty folder may be filled."""
    is_empty = folder.is_dir() and all(path.name == UNFINISHED for path in folder.iterdir())
    if folder.exists() and not is_empty:
        raise UsageError(f"{folder} exists and is not an empty folder; name a new one")


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Folder to write into that becomes `folder` at the end of the block, or goes away where the block fails.

    It lies in a hidden, locked folder beside: a second process that writes the same folder is refused meanwhile, and
    what a killed one left is removed. An empty folder that is there stays the same one and is filled, because it may be
    the working folder or a volume; the hidden folder lies in it then. With `replace` it may hold anything, which is
    removed at the end of the block.
    """
    is_filled = folder.is_dir() and not replace
    hidden = folder / UNFINISHED if is_filled else folder.with_name(f".{folder.name}{UNFINISHED}")
    content = hidden / "content"
    try:
        with _locked_folder(hidden, f"{folder} is being written by another process; name another folder"):
            shutil.rmtree(content, ignore_errors=True)
            content.mkdir()
            yield content
            if is_filled:
                if any(path != hidden for path in folder.iterdir()):
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
                for path in sorted(content.iterdir()):
                    path.rename(folder / path.name)
            else:
                if replace:
                    shutil.rmtree(folder, ignore_errors=True)
                content.rename(folder)
    except OSError as error:
        # What a user named is told, not the hidden folder.
        if isinstance(error.filename, str) and (path := Path(error.filename)).is_relative_to(hidden):
            error.filename = str(folder / path.relative_to(content) if path.is_relative_to(content) else folder)
        raise


@contextmanager
def _locked_folder(folder: Path, in_use: str) -> Iterator[None]:
    """Make a folder, lock it for the block, and remove it."""
    folder.mkdir(parents=True, exist_ok=True)
    held = Lock(folder / "lock", in_use)
    try:
        yield
    finally:
        if sys.platform == "win32":
            # An open file can't be removed there.
            held.release()
        # Before the release elsewhere: what comes after may be another process's.
        shutil.rmtree(folder, ignore_errors=True)
        held.release()


def name_within_limit(name: str, ending: str = "", limit: int = MAX_NAME_BYTES) -> str:
    """File name with an ending; one that gets too long keeps its start, then 8 hex digits of its hash.

    >>> name_within_limit("a" * 20, ".png", limit=16)
    'aaa-42492da0.png'
    """
    encoded = os.fsencode(name)
    if len(encoded) + len(os.fsencode(ending)) <= limit:
        return f"{name}{ending}"
    tail = f"-{hashlib.sha256(encoded).hexdigest()[:8]}{ending}"
    # The cut may go through a letter, whose first bytes are dropped then.
    return encoded[: limit - len(os.fsencode(tail))].decode("utf-8", errors="ignore") + tail


def _sync_folder(folder: Path) -> None:
    """Have the system put the names of a folder's files onto the disk, where it knows how to."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse; the files themselves are safe then all the same.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
