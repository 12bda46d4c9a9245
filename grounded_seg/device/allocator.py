"""glibc's allocator, kept from giving the models' large buffers back to the system after each operation.

By itself it maps every buffer of more than 32 MB anew, and unmaps it when it is freed: the system then clears page by
page what the next operation writes at once. An encoder's activations are such buffers.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt`, of glibc's `malloc.h`."""
KEPT_BYTES = 1 << 29
"""Free memory at the end of the heap that isn't given back."""
GROWTH_BYTES = 1 << 26
"""What the heap grows by at a time, at least."""
OWN_CHOICE = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of variables by which a user chooses an allocator, or its parameters."""


@cache
def keep_large_buffers() -> str:
    """Set glibc's thresholds for this process, once; gives the word for a run's manifest.

    That is `kept`, or `system` where the allocator isn't glibc's, or its parameters or another allocator were chosen by
    a variable of the environment, which stays as it is.
    """
    if any(name.startswith(OWN_CHOICE) and value for name, value in os.environ.items()):
        return "system"
    call = mallopt()
    if call is None:
        return "system"
    # The last one alone decides where large buffers come from: without the others it isn't set.
    for parameter, value in ((M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, GROWTH_BYTES), (M_MMAP_MAX, 0)):
        if not call(parameter, value):
            return "system"
    return "kept"


def mallopt() -> Callable[[int, int], int] | None:
    """The C library's `mallopt`; None on another system, or with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    process = ctypes.CDLL(None)
    # Only glibc tells its version, and musl has no such thresholds.
    if not (hasattr(process, "gnu_get_libc_version") and hasattr(process, "mallopt")):
        return None
    function = process.mallopt
    function.argtypes, function.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    call: Callable[[int, int], int] = function
    return call
