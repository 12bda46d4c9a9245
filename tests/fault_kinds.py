"""What can go wrong around a command: set up in its process before it begins, or at the n-th call of its files."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

IN_A_NAMESPACE = ("unshare", *(() if hasattr(os, "geteuid") and os.geteuid() == 0 else ("-U", "-r")), "-m")
"""A command that runs another one with mounts of its own."""
_SHARED = Path("/dev/shm")  # noqa: S108
_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _BIND, _PRIVATE, _RECURSIVE = 1, 32, 4096, 1 << 18, 16384
_CAPABILITIES_VERSION = 0x20080522


@cache
def _has_namespaces() -> bool:
    if shutil.which("unshare") is None or sys.platform != "linux":
        return False
    command = [*IN_A_NAMESPACE, "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /dev/shm"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _has_namespaces(), reason="this system gives no mounts to a test")


def compiled_shim(folder: Path) -> Path | None:
    """The library of `io_faults.c`, compiled; None where there is no compiler for it."""
    source, library = Path(__file__).parent / "faults" / "io_faults.c", folder / "io_faults.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"]
    return library if subprocess.run(command, capture_output=True, check=False).returncode == 0 else None


def redirect(descriptor: int, path: str | None, encoding: str = "utf-8") -> None:
    """Replace a standard stream by a file; None closes it, as `>&-` of a shell does before the program begins."""
    name = ("stdin", "stdout", "stderr")[descriptor]
    if path is None:
        setattr(sys, name, None)
        os.close(descriptor)
        return
    flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
    _text_stream(descriptor, encoding)


def _text_stream(descriptor: int, encoding: str) -> None:
    name = ("stdin", "stdout", "stderr")[descriptor]
    errors = "backslashreplace" if descriptor == 2 else "strict"
    mode = "r" if descriptor == 0 else "w"
    stream = os.fdopen(descriptor, mode, encoding=encoding, errors=errors, closefd=False)
    setattr(sys, name, stream)


def _without_reader(descriptor: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, descriptor)
    os.close(writing)
    _text_stream(descriptor, "utf-8")


def _encoding(name: str) -> None:
    _text_stream(1, name)


def _descriptors(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def _memory(megabytes: int) -> None:
    """Let the process take so much more address space than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _call(name: str, *arguments: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())


def _own_mounts() -> None:
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USER)
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("none", "/", "none", _PRIVATE | _RECURSIVE)


def _shared_memory(size: str, full: bool) -> None:
    _own_mounts()
    _mount("tmpfs", str(_SHARED), "tmpfs", 0, f"size={size}")
    if full:
        (_SHARED / "taken").write_bytes(bytes(shutil.disk_usage(_SHARED).free))


def _read_only(folder: str) -> None:
    _own_mounts()
    _mount(folder, folder, "none", _BIND)
    _mount("none", folder, "none", _REMOUNT | _BIND | _READ_ONLY)


def _without_rights() -> None:
    """Give up what lets root read and write everything."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
        _call("capset", header, (ctypes.c_uint32 * 6)())


def _fault(folder: str, kinds: int, number: int, action: int, value: int, old: str, new: str) -> None:
    ctypes.CDLL(None).fault_at(folder.encode(), kinds, ctypes.c_long(number), action, value, old.encode(), new.encode())


def write_count(path: str) -> None:
    """Write down how many calls were counted."""
    library = ctypes.CDLL(None)
    library.fault_count.restype = ctypes.c_long
    Path(path).write_text(str(library.fault_count()))


def _hub_cache(folder: str) -> None:
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_CACHE = folder


SETUPS: dict[str, Callable[..., None]] = {
    "redirect": redirect,
    "without_reader": _without_reader,
    "encoding": _encoding,
    "descriptors": _descriptors,
    "memory": _memory,
    "shared_memory": _shared_memory,
    "read_only": _read_only,
    "without_rights": _without_rights,
    "fault": _fault,
    "hub_cache": _hub_cache,
}

CREATE, WRITE, SYNC, NAME, READ = 1, 2, 4, 8, 16
CHANGES = CREATE | WRITE | SYNC | NAME
FAIL, SIGNAL, MOVE, FORBID, SET_BACK = range(5)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at one call of a command's files."""

    name: str
    action: int
    value: int = 0
    kinds: int = CHANGES
    codes: frozenset[int] = frozenset()
    """Exit codes beside the one of a command that nothing happens to."""
    below: str = "results"
    """Folder whose calls are counted."""
    moved: tuple[str, str] = ("", "")
    """What is moved, or whose rights are taken, and where to."""
    setup: tuple[tuple[Any, ...], ...] = ()
    is_skipped: bool = False
    """Whether a run goes on without the image that it came at, so that its results are others until it is resumed."""
    same_bytes: bool = True
    """Whether the same command, again or resumed, gives the bytes of one that nothing happened to."""


AT_A_STEP = (
    Fault("kill -9", SIGNAL, signal.SIGKILL, codes=frozenset({-signal.SIGKILL})),
    Fault("SIGTERM", SIGNAL, signal.SIGTERM, codes=frozenset({130})),
    Fault("Ctrl-C", SIGNAL, signal.SIGINT, codes=frozenset({130})),
    Fault("disk full", FAIL, 28, CREATE | WRITE | SYNC, frozenset({1})),
    Fault("EIO on writing", FAIL, 5, WRITE | SYNC, frozenset({1})),
    Fault("EIO on reading", FAIL, 5, READ, frozenset({1, 3, 4}), below="inputs", is_skipped=True),
    Fault("folder taken away", MOVE, codes=frozenset({1, 2, 3}), moved=("results", "away")),
    Fault(
        "permission lost", FORBID, 0, codes=frozenset({1, 2, 3}), moved=("results", ""), setup=(("without_rights",),)
    ),
    Fault("input replaced", MOVE, codes=frozenset({1, 3, 4}), moved=("other", "{input}"), same_bytes=False),
    Fault("input removed", MOVE, codes=frozenset({1, 3, 4}), moved=("{input}", "gone"), same_bytes=False),
    Fault("clock set back", SET_BACK, 86_400),
)
"""From the start of a command to its end."""

AT_THE_START: dict[str, tuple[tuple[tuple[Any, ...], ...], frozenset[int]]] = {
    "stdout closed": ((("redirect", 1, None),), frozenset()),
    "stderr closed": ((("redirect", 2, None),), frozenset()),
    "all streams closed": ((("redirect", 0, None), ("redirect", 1, None), ("redirect", 2, None)), frozenset()),
    "stdout without reader": ((("without_reader", 1),), frozenset({141})),
    "stderr without reader": ((("without_reader", 2),), frozenset()),
    "stdout full": ((("redirect", 1, "/dev/full"),), frozenset({1})),
    "stderr full": ((("redirect", 2, "/dev/full"),), frozenset()),
    "stdout in ASCII": ((("encoding", "ascii"),), frozenset()),
    "ulimit -n 64": ((("descriptors", 64),), frozenset({1, 3, 5})),
    "ulimit -n 12": ((("descriptors", 12),), frozenset({1, 3, 4, 5})),
    "ulimit -v": ((("memory", 24),), frozenset({1, 5})),
    "shared memory full": ((("shared_memory", "64k", True),), frozenset({5})),
    "shared memory of 64 KB": ((("shared_memory", "64k", False),), frozenset()),
    "read-only mount": ((("read_only", "results"),), frozenset({1})),
}
"""What a command finds: how it is set up, and the exit codes beside the one of a command that nothing happens to."""
NEEDS_NAMESPACES = {"shared memory full", "shared memory of 64 KB", "read-only mount"}
