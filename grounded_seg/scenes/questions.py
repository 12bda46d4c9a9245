"""Questions about a scene and their true answers: what is there, what isn't, and words that no scene has."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from grounded_seg.scenes.render import Scene, SceneObject
from grounded_seg.scenes.shapes import COLOURS, KINDS

_WORDS = """
airplane anchor ant apple arrow axe backpack badger bag bagel balloon banana bandage barn barrel basket bat bear bed bee
beetle bell belt bench bicycle bird biscuit blanket boat bone book boot bottle bowl bracelet branch bread brick bridge
broom brush bucket bus bush butterfly button cabbage cabinet cactus cage cake camel camera candle cannon canoe cap
carpet carrot castle cat cello chain chair cherry chicken chimney church clock cloud coat coconut coin comb computer
cookie cow crab crane crocodile crown cup curtain daisy deer desk dog dolphin donkey door dragon dress drill drum duck
eagle ear elephant engine envelope eye fan feather fence ferry finger fish flag flower flute fork fountain fox frog
fruit garage gate ghost giraffe glass glove goat goose grape guitar hammer hand hat hedge helicopter helmet hen horse
hose hotel iceberg insect iron island jacket jar jeep jewel jug kangaroo kettle key keyboard kite knife koala ladder
ladybug lake lamp laptop leaf lemon leopard letter lighthouse lion lizard lobster lock log magnet mailbox map mask
melon microphone mirror mitten monkey moon motorcycle mountain mouse mug mushroom nail necklace needle nest newspaper
notebook nut octopus olive onion orchid ostrich owl paddle paint palm pan panda parrot peach peacock pear pen pencil
penguin person phone piano pig pigeon pillow pineapple pipe pizza plane plate plum pond potato pumpkin rabbit racket
radio rain rake ribbon ring river road robot rock rocket roof rope rose ruler saddle sail salmon sandal sandwich saw
scarf school scissors scooter seal shark sheep shell ship shirt shoe shovel sink skate skirt sled snail snake sock sofa
soup spade spider spoon squirrel stairs stool stove strawberry suitcase sun swan sweater sword table teapot telephone
television tent tiger toaster tomato tooth towel tower tractor train truck trumpet turtle umbrella van vase vest violin
volcano wagon wallet watch waterfall whale wheel whistle window wolf worm yacht zebra
person;woman;man;child;traffic light;street sign;coffee cup;dining table;tennis racket;teddy bear;wine glass
fire hydrant;cell phone;hair dryer;parking meter;baseball bat;hot dog;potted plant;stop sign;remote control
Vögel;Haus am See;fenêtre;árbol;niño;gato negro;кошка;собака;машина;猫;赤い車;房子;자동차;كلب;δέντρο;mačka;çiçek;żaba
x;qqq;17;???;a photo;the thing on the left;nothing;asdf ghjk;0.5;N/A
"""
"""Words for things that no scene shows. Half of them teach the demo to answer with nothing, the other half test it."""

_LISTED = tuple(
    dict.fromkeys(word for line in _WORDS.strip().splitlines() for word in line.split(";" if ";" in line else None))
)
TRAINING_WORDS, HELD_OUT_WORDS = _LISTED[::2], _LISTED[1::2]


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

    The scene has at least one object; `held_out` draws unknown words from those that training never saw.
    """
    one = scene.objects[int(rng.integers(len(scene.objects)))]
    if kind in (QuestionKind.COLOUR_KIND, QuestionKind.KIND):
        return _question(scene, kind, one.kind, one.colour if kind is QuestionKind.COLOUR_KIND else None)
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
    word = str(rng.choice(HELD_OUT_WORDS if held_out else TRAINING_WORDS))
    prompt = f"{rng.choice(list(COLOURS))} {word}" if rng.random() < 0.5 else word
    return Question(QuestionKind.UNKNOWN, prompt, ())


def _question(scene: Scene, question: QuestionKind, kind: str, colour: str | None) -> Question:
    answers = [o for o in scene.objects if o.kind == kind and colour in (None, o.colour)]
    answers.sort(key=lambda o: (o.box_xyxy[0], o.box_xyxy[1]))
    return Question(question, kind if colour is None else f"{colour} {kind}", tuple(answers))
