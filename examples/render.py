"""Render the example scenes again.

    python examples/render.py [--folder examples]

They are of the test split, beyond the ones that are evaluated.
"""

import argparse
from pathlib import Path

from PIL import Image

from grounded_seg.scenes import Scene, Split, render_scene

FIRST_INDEX = 10_000
N_EXAMPLES = 3


def is_telling(scene: Scene) -> bool:
    """Whether "red car" is a real question here: one among other cars and other red things."""
    seen = {(o.colour, o.kind) for o in scene.objects}
    others = {colour for colour, kind in seen if kind == "car"} - {"red"}
    red_things = {kind for colour, kind in seen if colour == "red"} - {"car"}
    return ("red", "car") in seen and bool(others) and bool(red_things)


def main() -> None:
    """Write the first few telling scenes."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, default=Path(__file__).parent, help="beside this file if not given")
    folder = options.parse_args().folder
    index, found = FIRST_INDEX, 0
    while found < N_EXAMPLES:
        scene = render_scene(Split.TEST, index)
        if is_telling(scene):
            found += 1
            Image.fromarray(scene.pixels).save(folder / f"scene-{found}.jpg", quality=88)
        index += 1


if __name__ == "__main__":
    main()
