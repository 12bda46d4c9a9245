"""glibc's thresholds, set once and from within; what a user chose stays."""

import subprocess
import sys

import pytest

from grounded_seg.device import allocator as allocator_module
from grounded_seg.device.allocator import keep_large_buffers

is_glibc = pytest.mark.skipif(allocator_module.mallopt() is None, reason="the C library isn't glibc")
FAULTS = """
import ctypes, resource
from grounded_seg.device.allocator import keep_large_buffers
process = ctypes.CDLL(None)
process.malloc.restype, process.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
process.free.argtypes, process.memset.argtypes = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffer = process.malloc(1 << 26)
    process.memset(buffer, 1, 1 << 26)
    process.free(buffer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
use()
before = use()
print(keep_large_buffers(), keep_large_buffers())
use()
print(before, use())
"""


def printed(**variables: str) -> list[str]:
    """The words of a process in which a buffer of 64 MB is used twice without thresholds of ours, then twice with."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **variables}
    command = [sys.executable, "-c", FAULTS]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()


@is_glibc
def test_a_buffer_that_is_used_again_costs_no_page_faults() -> None:
    first, second, before, after = printed()
    assert first == second == "kept"
    assert int(before) >= 20
    assert int(after) < int(before) / 10


@is_glibc
@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_a_choice_of_the_users_own_stays(variable: str) -> None:
    first, _, before, after = printed(**{variable: "glibc.malloc.arena_max=2" if "GLIBC" in variable else "131072"})
    assert first == "system"
    assert int(after) > int(before) / 2


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert keep_large_buffers.__wrapped__() == "system"
