"""Paint a scene: textured ground, objects that overlap, light, blur and noise; and keep each object's visible mask.

Objects are 5 % to 45 % of the side, where an object's size is the root of its box's share of the image. No object hides
more than a third of what is left of another one.
"""

from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

from grounded_seg.records import BoxXyxy, ImageSize
from grounded_seg.scenes.shapes import COLOURS, KINDS, Kind

ASPECT_RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9, 3 / 4, 2 / 3)
"""Width over height of real photographs."""
SMALLEST, LARGEST = 0.05, 0.45
MAX_HIDDEN_AT_ONCE = 0.35
SUBPIXEL_BITS = 4

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class Split(IntEnum):
    """Scenes of different splits never meet: the split is part of the seed."""

    TRAIN = 0
    VALID = 1
    TEST = 2


@dataclass(frozen=True, eq=False)
class SceneObject:
    """One painted object; its mask (height, width) has the pixels where it is on top."""

    kind: str
    colour: str
    mask: Mask

    @property
    def box_xyxy(self) -> BoxXyxy:
        """The tight box around the visible pixels."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)

    @property
    def relative_size(self) -> float:
        """The root of the visible box's share of the image, in (0, 1]."""
        x0, y0, x1, y1 = self.box_xyxy
        return float(np.sqrt((x1 - x0) * (y1 - y0) / self.mask.size))


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, RGB (height, width, 3), and its objects from back to front."""

    pixels: Pixels
    objects: tuple[SceneObject, ...]

    @property
    def size(self) -> ImageSize:
        """Width and height in pixels."""
        return ImageSize(width=self.pixels.shape[1], height=self.pixels.shape[0])


def render_scene(split: Split, index: int, short_side: int = 480, max_objects: int = 8) -> Scene:
    """Make the scene with this index, always the same one, with at least one object.

    The layout doesn't depend on `short_side`, the shorter side of the image in pixels.
    """
    rng = np.random.default_rng((int(split), index))
    ratio = float(rng.choice(ASPECT_RATIOS))
    size = ImageSize(round(short_side * max(1.0, ratio)), round(short_side * max(1.0, 1 / ratio)))
    canvas = _ground(size, rng)
    objects: list[SceneObject] = []
    n_objects = int(rng.integers(1, max_objects + 1))
    for _ in range(n_objects * 4):
        if len(objects) < n_objects:
            _add_object(canvas, objects, n_objects, rng)
    return Scene(_develop(canvas, short_side, rng), tuple(objects))


def _ground(size: ImageSize, rng: np.random.Generator) -> Floats:
    """A muted ground with texture at several scales and clutter that is no object, (height, width, 3), 0 to 255."""
    wh = (size.width, size.height)
    grey = rng.uniform(50, 205)
    canvas = np.full((size.height, size.width, 3), np.clip(grey + rng.uniform(-22, 22, 3), 20, 235), np.float32)
    for cells, depth in ((4, 18), (24, 14), (96, 12)):
        patch = rng.normal(0, rng.uniform(0.2, 1) * depth, (cells, cells, 1 if cells > 4 else 3)).astype(np.float32)
        texture = cv2.resize(patch, wh, interpolation=cv2.INTER_LINEAR)
        canvas += texture if texture.ndim == 3 else texture[..., None]
    for _ in range(int(rng.integers(0, 7))):
        start, end = rng.uniform(0, 1, 2) * wh, rng.uniform(0, 1, 2) * wh
        thickness = max(1, int(rng.uniform(0.003, 0.03) * min(wh)))
        shade = float(np.clip(grey + rng.uniform(-60, 60), 10, 245))
        colour = tuple(float(v) for v in np.clip(shade + rng.uniform(-14, 14, 3), 0, 255))
        cv2.line(canvas, start.astype(int).tolist(), end.astype(int).tolist(), colour, thickness, cv2.LINE_AA)
    return np.clip(canvas, 0, 255, out=canvas)


def _add_object(canvas: Floats, objects: list[SceneObject], n_objects: int, rng: np.random.Generator) -> None:
    """Paint one object at a random place, or nothing where it would hide too much of an earlier one."""
    kind, colour = str(rng.choice(list(KINDS))), str(rng.choice(list(COLOURS)))
    placed = _placement(KINDS[kind], canvas.shape[:2], n_objects, rng)
    body = np.clip(np.array(COLOURS[colour]) + rng.uniform(-16, 16, 3), 0, 255)
    x0, y0 = np.maximum(np.floor(np.concatenate(placed).min(0)).astype(int) - 1, 0)
    x1, y1 = np.ceil(np.concatenate(placed).max(0)).astype(int) + 2
    here = np.s_[y0:y1, x0:x1]
    patch = canvas[here]
    layers = [_coverage(points - (x0, y0), patch.shape[:2]) for points in placed]
    covered = np.maximum.reduce(layers) > 127
    hidden = [np.count_nonzero(other.mask[here] & covered) / np.count_nonzero(other.mask) for other in objects]
    if not covered.any() or max(hidden, default=0) > MAX_HIDDEN_AT_ONCE:
        return
    light = _shading(patch.shape[:2], rng)
    for part, layer in zip(KINDS[kind].parts, layers, strict=True):
        paint = np.array(part.fixed_rgb, np.float32) if part.fixed_rgb else body.astype(np.float32) * part.shade
        patch += layer[..., None] * np.float32(1 / 255) * (np.minimum(paint * light, 255) - patch)
    for other in objects:
        other.mask[here] &= ~covered
    mask = np.zeros(canvas.shape[:2], np.bool_)
    mask[here] = covered
    objects.append(SceneObject(kind, colour, mask))


def _coverage(points: npt.NDArray[np.float64], shape_hw: tuple[int, ...]) -> Pixels:
    """How much of each pixel a polygon covers, (height, width), 0 to 255."""
    layer = np.zeros(shape_hw, np.uint8)
    corners = np.round((points - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(layer, [corners], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return layer


def _placement(
    kind: Kind, shape_hw: tuple[int, ...], n_objects: int, rng: np.random.Generator
) -> list[npt.NDArray[np.float64]]:
    """The corners of each part in pixels, (n, 2), for a random size, place, tilt and mirroring."""
    height, width = shape_hw
    size = rng.uniform(SMALLEST, max(2 * SMALLEST, min(LARGEST, 1.1 / np.sqrt(n_objects))))
    root_aspect = np.sqrt(rng.uniform(*kind.aspect))
    w, h = size * np.sqrt(width * height) * np.array([root_aspect, 1 / root_aspect])
    tilt = np.deg2rad(rng.uniform(-12, 12))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    mirror = rng.choice([-1, 1])
    margin_x, margin_y = min(0.5, w / 2 / width), min(0.5, h / 2 / height)
    centre = rng.uniform((margin_x, margin_y), (1 - margin_x, 1 - margin_y)) * (width, height)
    return [((part.points - 0.5) * (w * mirror, h)) @ turn.T + centre for part in kind.parts]


def _shading(shape_hw: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Brightness over an object's patch: a slope across it, and stripes on some; (height, width, 1)."""
    across = np.linspace(-0.5, 0.5, shape_hw[1], dtype=np.float32)[None]
    down = np.linspace(-0.5, 0.5, shape_hw[0], dtype=np.float32)[:, None]
    slope = 1 + rng.uniform(-0.22, 0.22) * across + rng.uniform(-0.22, 0.22) * down
    if rng.random() < 0.25:
        waves, lean = rng.uniform(2, 5), rng.uniform(-1, 1)
        slope = slope * (1 + 0.09 * np.sign(np.sin(2 * np.pi * waves * (across + lean * down))))
    return slope.astype(np.float32)[..., None]


def _develop(canvas: Floats, short_side: int, rng: np.random.Generator) -> Pixels:
    """Light over the whole picture, a tint, blur and noise; then 8 bits."""
    height, width = canvas.shape[:2]
    corners = rng.uniform(0.72, 1.2, (2, 2)).astype(np.float32)
    slope: Floats = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    lit = canvas * slope[..., None] * rng.uniform(0.94, 1.06, 3).astype(np.float32)
    sigma = rng.uniform(0, 0.004) * short_side
    if sigma > 0.3:
        lit = cv2.GaussianBlur(lit, (0, 0), sigma).astype(np.float32)
    noise = np.empty(canvas.shape, np.int16)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    cv2.randn(noise, np.zeros(3), np.full(3, rng.uniform(0.5, 7)))
    developed: Pixels = np.clip(lit + noise, 0, 255).astype(np.uint8)
    return developed
