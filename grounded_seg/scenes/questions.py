"""Questions about a scene and their true answers: what is there, what isn't, and words no scene has."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from grounded_seg.scenes.render import Scene, SceneObject
from grounded_seg.scenes.shapes import COLOURS, KINDS
from grounded_seg.scenes.words import HELD_OUT_WORDS, TRAINING_WORDS


class QuestionKind(StrEnum):
    """What a question is about."""

    COLOUR_KIND = "colour kind"
    KIND = "kind"
    OTHER_COLOUR = "other colour"
    """A kind that is there, in a colour it isn't: absent, and the hardest to leave alone."""
    ABSENT_KIND = "absent kind"
    UNKNOWN = "unknown word"
    """A word for nothing that is ever rendered."""


@dataclass(frozen=True)
class Question:
    """A prompt and the objects that answer it, from left to right; none for an absent one."""

    kind: QuestionKind
    prompt: str
    answers: tuple[SceneObject, ...]


def ask(scene: Scene, kind: QuestionKind, rng: np.random.Generator, *, held_out: bool = False) -> Question:
    """Ask one question of this kind; where a scene can't have it (every kind is there), an unknown word instead.

    Args:
        scene: What is asked about; it has at least one object.
        kind: What the question is about.
        rng: Chooses among the possible questions.
        held_out: Draw unknown words from those that training never saw.
    """
    one = scene.objects[int(rng.integers(len(scene.objects)))]
    if kind is QuestionKind.COLOUR_KIND:
        return _question(scene, kind, one.kind, one.colour)
    if kind is QuestionKind.KIND:
        return _question(scene, kind, one.kind, None)
    if kind is QuestionKind.OTHER_COLOUR:
        there = {o.colour for o in scene.objects if o.kind == one.kind}
        # A colour of another object in the scene makes the harder question.
        near = sorted({o.colour for o in scene.objects} - there)
        colours = near if near and rng.random() < 0.7 else sorted(set(COLOURS) - there)
        return _question(scene, kind, one.kind, str(rng.choice(colours)))
    missing = sorted(set(KINDS) - {o.kind for o in scene.objects})
    if kind is QuestionKind.ABSENT_KIND and missing:
        colour = str(rng.choice(list(COLOURS))) if rng.random() < 0.5 else None
        return _question(scene, kind, str(rng.choice(missing)), colour)
    return Question(QuestionKind.UNKNOWN, _unknown_prompt(rng, held_out), ())


def _question(scene: Scene, question: QuestionKind, kind: str, colour: str | None) -> Question:
    answers = [o for o in scene.objects if o.kind == kind and colour in (None, o.colour)]
    answers.sort(key=lambda o: (o.box_xyxy[0], o.box_xyxy[1]))
    return Question(question, kind if colour is None else f"{colour} {kind}", tuple(answers))


def _unknown_prompt(rng: np.random.Generator, held_out: bool) -> str:
    word = str(rng.choice(HELD_OUT_WORDS if held_out else TRAINING_WORDS))
    return f"{rng.choice(list(COLOURS))} {word}" if rng.random() < 0.5 else word
