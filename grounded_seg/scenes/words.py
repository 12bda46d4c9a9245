"""Words for things that no scene shows. Half of them teach the demo to answer with nothing, the other half test it."""

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


def _listed() -> list[str]:
    found: list[str] = []
    for line in _WORDS.strip().splitlines():
        found += line.split(";") if ";" in line or not line.isascii() else line.split()
    return list(dict.fromkeys(found))


TRAINING_WORDS: tuple[str, ...] = tuple(_listed()[::2])
HELD_OUT_WORDS: tuple[str, ...] = tuple(_listed()[1::2])
