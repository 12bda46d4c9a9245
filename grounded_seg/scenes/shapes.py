"""The kinds of objects in a scene, as painted polygons in a unit square, and the colours they come in."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Rgb: TypeAlias = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (214, 38, 38),
    "orange": (242, 136, 24),
    "yellow": (240, 218, 46),
    "green": (44, 168, 62),
    "blue": (44, 84, 214),
    "purple": (142, 56, 178),
    "white": (240, 240, 240),
}
"""RGB of each colour's centre; a painted object varies around it."""

GLASS, RUBBER, BARK, DOOR = (176, 204, 222), (32, 32, 34), (112, 78, 48), (70, 52, 40)


@dataclass(frozen=True, eq=False)
class Part:
    """One polygon of an object: corners x, y (n, 2) in the object's unit square.

    Its brightness is relative to the object's colour; a fixed colour, as a wheel's, doesn't follow the object's.
    """

    points: npt.NDArray[np.float64]
    shade: float = 1.0
    fixed_rgb: Rgb | None = None


def _polygon(*corners: tuple[float, float], shade: float = 1.0, rgb: Rgb | None = None) -> Part:
    return Part(np.array(corners, np.float64), shade, rgb)


def _ellipse(cx: float, cy: float, rx: float, ry: float, shade: float = 1.0, rgb: Rgb | None = None) -> Part:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return Part(np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1), shade, rgb)


def _star(shade: float = 1.0, scale: float = 1.0) -> Part:
    turn = np.arange(10) * np.pi / 5
    radius = scale * np.where(np.arange(10) % 2 == 0, 0.5, 0.2)
    return Part(np.stack([0.5 + radius * np.sin(turn), 0.5 - radius * np.cos(turn)], 1), shade)


@dataclass(frozen=True)
class Kind:
    """A kind of object: its parts from back to front, and the range of its width over its height."""

    parts: tuple[Part, ...]
    aspect: tuple[float, float]


KINDS: dict[str, Kind] = {
    "car": Kind(
        (
            _polygon((0, 0.48), (0.18, 0.44), (0.3, 0.06), (0.72, 0.06), (0.86, 0.44), (1, 0.52), (1, 0.82), (0, 0.82)),
            _polygon((0.25, 0.42), (0.335, 0.14), (0.5, 0.14), (0.5, 0.42), rgb=GLASS),
            _polygon((0.54, 0.42), (0.54, 0.14), (0.69, 0.14), (0.79, 0.42), rgb=GLASS),
            _ellipse(0.22, 0.81, 0.1, 0.19, rgb=RUBBER),
            _ellipse(0.78, 0.81, 0.1, 0.19, rgb=RUBBER),
        ),
        (1.6, 2.3),
    ),
    "ball": Kind((_ellipse(0.5, 0.5, 0.5, 0.5), _ellipse(0.36, 0.33, 0.15, 0.13, shade=1.3)), (0.95, 1.05)),
    "box": Kind(
        (
            _polygon((0, 0.25), (0.75, 0.25), (0.75, 1), (0, 1)),
            _polygon((0, 0.25), (0.25, 0), (1, 0), (0.75, 0.25), shade=1.22),
            _polygon((0.75, 0.25), (1, 0), (1, 0.75), (0.75, 1), shade=0.7),
        ),
        (0.75, 1.5),
    ),
    "tree": Kind(
        (
            _polygon((0.42, 0.7), (0.58, 0.7), (0.6, 1), (0.4, 1), rgb=BARK),
            _polygon((0.5, 0.3), (1, 0.78), (0, 0.78), shade=0.86),
            _polygon((0.5, 0), (0.86, 0.46), (0.14, 0.46)),
        ),
        (0.55, 0.9),
    ),
    "star": Kind((_star(), _star(shade=1.15, scale=0.55)), (0.9, 1.1)),
    "house": Kind(
        (
            _polygon((0.08, 0.42), (0.92, 0.42), (0.92, 1), (0.08, 1)),
            _polygon((0.5, 0), (1, 0.44), (0, 0.44), shade=0.66),
            _polygon((0.4, 0.64), (0.6, 0.64), (0.6, 1), (0.4, 1), rgb=DOOR),
            _polygon((0.7, 0.58), (0.84, 0.58), (0.84, 0.74), (0.7, 0.74), rgb=GLASS),
        ),
        (0.8, 1.3),
    ),
}
