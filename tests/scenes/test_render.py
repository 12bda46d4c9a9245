"""Rendered scenes: the same again for the same index, exact visible masks, questions with true answers."""

import re
from pathlib import Path

import numpy as np
import pytest

import grounded_seg.scenes
from grounded_seg.scenes import COLOURS, KINDS, QuestionKind, Scene, Split, ask, render_scene
from grounded_seg.scenes.questions import HELD_OUT_WORDS, TRAINING_WORDS
from grounded_seg.scenes.render import LARGEST, SMALLEST


def test_the_package_names_its_modules() -> None:
    modules = {path.stem for path in Path(grounded_seg.scenes.__file__).parent.glob("[a-z]*.py")}
    assert set(re.findall(r"`(\w+)`", grounded_seg.scenes.__doc__ or "")) == modules


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(Split.TEST, index, short_side=160) for index in range(60)]


def test_the_same_index_gives_the_same_scene() -> None:
    one, again = (render_scene(Split.VALID, 7, short_side=96) for _ in range(2))
    assert np.array_equal(one.pixels, again.pixels)
    assert [(o.kind, o.colour, o.box_xyxy) for o in one.objects] == [
        (o.kind, o.colour, o.box_xyxy) for o in again.objects
    ]


def test_splits_and_indices_give_other_scenes() -> None:
    pictures = [render_scene(split, index, short_side=96).pixels for split in Split for index in range(3)]
    assert len({p.tobytes() for p in pictures}) == len(pictures)


def test_scenes_vary_as_promised(scenes: list[Scene]) -> None:
    objects = [o for scene in scenes for o in scene.objects]
    assert len(KINDS) >= 6
    assert len(COLOURS) >= 7
    assert {o.kind for o in objects} == set(KINDS)
    assert {o.colour for o in objects} == set(COLOURS)
    assert {len(scene.objects) for scene in scenes} >= {1, 2, 3, 4, 5, 6}
    assert all(1 <= len(scene.objects) <= 8 for scene in scenes)
    assert len({scene.size for scene in scenes}) >= 5
    sizes = [o.relative_size for o in objects]
    assert min(sizes) < 2 * SMALLEST
    assert 0.7 * LARGEST < max(sizes) < 1.2 * LARGEST  # a tilt makes the box larger than the object


def test_masks_are_what_is_on_top(scenes: list[Scene]) -> None:
    for scene in scenes:
        owners = np.sum([o.mask for o in scene.objects], axis=0)
        assert owners.max() == 1
        assert all(o.mask.shape == scene.pixels.shape[:2] and o.mask.any() for o in scene.objects)


def test_a_mask_covers_the_painted_pixels() -> None:
    """The object's own colour is inside its mask: paint differs from the ground there, seen on a large plain ball."""
    for index in range(200):
        scene = render_scene(Split.TEST, index, short_side=160)
        ball = next(
            (o for o in scene.objects if o.kind == "ball" and o.colour == "red" and o.relative_size > 0.25), None
        )
        if ball is not None:
            break
    assert ball is not None
    redness = scene.pixels[..., 0].astype(int) - scene.pixels[..., 2]
    assert redness[ball.mask].mean() > 60
    assert redness[ball.mask].mean() > redness[~ball.mask].mean() + 40


def test_the_box_is_tight() -> None:
    for o in render_scene(Split.TEST, 3, short_side=160).objects:
        x0, y0, x1, y1 = (int(v) for v in o.box_xyxy)
        assert o.mask[y0:y1, x0:x1].sum() == o.mask.sum()
        assert o.mask[y0].any()
        assert o.mask[y1 - 1].any()
        assert o.mask[:, x0].any()
        assert o.mask[:, x1 - 1].any()


def test_the_layout_does_not_depend_on_the_resolution() -> None:
    small, large = (render_scene(Split.TEST, 11, short_side=side) for side in (120, 480))
    assert [(o.kind, o.colour) for o in small.objects] == [(o.kind, o.colour) for o in large.objects]
    for a, b in zip(small.objects, large.objects, strict=True):
        assert np.allclose(np.array(a.box_xyxy) * 4, b.box_xyxy, atol=10)


@pytest.mark.parametrize("kind", list(QuestionKind))
def test_answers_are_true(scenes: list[Scene], kind: QuestionKind) -> None:
    rng = np.random.default_rng(0)
    for scene in scenes:
        question = ask(scene, kind, rng)
        words = question.prompt.split()
        expected = [o for o in scene.objects if o.kind == words[-1] and (len(words) == 1 or o.colour == words[0])]
        assert {id(o) for o in question.answers} == {id(o) for o in expected}
        assert bool(expected) == (question.kind in (QuestionKind.COLOUR_KIND, QuestionKind.KIND))
        lefts = [o.box_xyxy[0] for o in question.answers]
        assert lefts == sorted(lefts)


def test_unknown_words_are_unknown_and_split() -> None:
    assert not set(TRAINING_WORDS) & set(HELD_OUT_WORDS)
    assert not (set(TRAINING_WORDS) | set(HELD_OUT_WORDS)) & set(KINDS)
    assert len(HELD_OUT_WORDS) > 100
