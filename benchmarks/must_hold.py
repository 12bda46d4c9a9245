"""What a benchmark must hold: a line for each bound, and exit code 1 where one isn't met.

What this machine can't measure, such as bfloat16 where the processor has none, is said with its reason and isn't held
against it.
"""

import sys
from dataclasses import dataclass, field

import torch

from grounded_seg.device.kernels import cpu_kind


@dataclass
class MustHold:
    """Bounds and what was measured, one after the other."""

    lines: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def at_least(self, what: str, value: float | None, least: float, *, unless: str = "") -> None:
        """Hold a value against its lower bound; None, or a reason, if it wasn't measured."""
        self._add(f"{what}: at least {least:g}", value, value is not None and value >= least, unless)

    def at_most(self, what: str, value: float | None, most: float, *, unless: str = "") -> None:
        """Hold a value against its upper bound; None, or a reason, if it wasn't measured."""
        self._add(f"{what}: at most {most:g}", value, value is not None and value <= most, unless)

    def _add(self, line: str, value: float | None, is_met: bool, unless: str) -> None:
        if unless or value is None:
            self.lines.append(f"{line}; not measured: {unless or 'nothing was'}")
            return
        line = f"{line}; it is {value:.4g}"
        self.lines.append(line)
        if not is_met:
            self.missed.append(line)

    def exit_code(self) -> int:
        """Print all lines, and on stderr those that aren't met; 1 if there are any."""
        for line in self.lines:
            print(f"must hold: {line}")
        for line in self.missed:
            print(f"not met: {line}", file=sys.stderr)
        return int(bool(self.missed))


def no_bfloat16() -> str:
    """Why this processor's times in bfloat16 say nothing; empty if it computes in it."""
    kind = cpu_kind()
    return "" if kind in ("amx", "avx512-bf16") else f"the processor ({kind}) has no bfloat16"


def not_full_size(size: str, expected: str) -> str:
    """Why another model's figures say nothing; empty if it is the `expected` one."""
    return "" if size == expected else f"of {expected}, not of {size}"


def not_in(dtype: torch.dtype, expected: torch.dtype) -> str:
    """Why figures in another dtype say nothing; empty if it is the `expected` one."""
    return "" if dtype is expected else f"in {expected}, not in {dtype}".replace("torch.", "")
