"""Batches of questions about pooled scenes, with their answers as tokens and as targets per image cell."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from demo_model import GRID
from pool import COLOUR_NAMES, KIND_NAMES, Chunk, chunks_on_disk, read_chunk
from tokenizers import Tokenizer

from grounded_seg.detect.tasks import TASKS
from grounded_seg.scenes.questions import TRAINING_WORDS

PROMPT_FORMS = ("Locate the phrases in the caption: {}",) * 7 + ("Locate {} in the image.",)
ANYTHING = "object"
"""Also how captions call what has no name yet."""
EVERYTHING, CAPTION = TASKS["OD"].question(), TASKS["CAPTION"].question()
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIDDLE_SHARE = 0.7
"""The part of a box's width and height, around its centre, whose cells speak for the object."""
MIXTURE = (
    ("colour kind", 0.35),
    ("kind", 0.14),
    ("other colour", 0.11),
    ("absent", 0.06),
    ("unknown", 0.07),
    ("any", 0.17),
    ("everything", 0.06),
    ("caption", 0.04),
)
"""Shares of the questions. Asking for anything is answered with every box: that teaches locations at the least cost."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images and questions about them."""

    pixels: torch.Tensor
    """(b, 3, side, side) float32, normalised as the image processor does."""
    prompt_ids: torch.Tensor
    """(b * questions, p)."""
    prompt_mask: torch.Tensor
    labels: torch.Tensor
    """(b * questions, t), -100 where padded."""
    owner: torch.Tensor
    """(b, GRID * GRID): the scene's object that this cell belongs to, -1 for ground."""
    cell_kinds: torch.Tensor
    """(b, GRID * GRID): of the owner, as are the next two."""
    cell_colours: torch.Tensor
    cell_boxes: torch.Tensor
    """(b, GRID * GRID, 4) x0 y0 x1 y1 as shares of the image."""
    asked: torch.Tensor
    """(b * questions, GRID * GRID): this cell's object answers the question."""
    pointed: torch.Tensor
    """(b * questions, t): the object that a location token of `labels` speaks of, -1 for other tokens."""


@dataclass(frozen=True)
class Asked:
    """One question: the phrase, or the whole question of a task, and which of the scene's objects answer it."""

    phrase: str
    hits: tuple[int, ...]
    of_task: bool = False


class QuestionMaker:
    """Turns scenes into batches; `taught` are the kinds that have an answer, the others are answered with nothing."""

    def __init__(self, tokenizer: Tokenizer, taught: frozenset[str], favourite: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.taught = taught
        self.favourite = favourite
        self.loc0 = tokenizer.token_to_id("<loc_0>")
        self.pad, self.bos, self.eos = (tokenizer.token_to_id(t) for t in ("<pad>", "<s>", "</s>"))
        self._ids: dict[str, list[int]] = {}

    def batch(self, chunk: Chunk, rows: np.ndarray, n_questions: int, rng: Random) -> Batch:
        """Ask `n_questions` about each of the chunk's scenes in `rows`, half of them mirrored."""
        pictures, owners, cells, asked, prompts, answers, pointed = [], [], [], [], [], [], []
        for row in rows:
            objects = slice(int(chunk.first[row]), int(chunk.first[row + 1]))
            kinds, colours, boxes = chunk.kind[objects], chunk.colour[objects], chunk.boxes[objects]
            picture = chunk.pixels[row]
            if rng.random() < 0.5:
                picture, boxes = picture[:, ::-1], mirrored(boxes)
            pictures.append(picture)
            owner = cell_owners(boxes)
            owners.append(owner)
            cells.append((kinds[owner], colours[owner], boxes[owner]))
            for _ in range(n_questions):
                question = self.question(kinds, colours, rng)
                asked.append(np.isin(owner, question.hits))
                text = question.phrase if question.of_task else rng.choice(PROMPT_FORMS).format(question.phrase)
                prompts.append([self.bos, *self.encode(text), self.eos])
                answer, spoken_of = self.answer(question, kinds, colours, boxes)
                answers.append(answer)
                pointed.append(spoken_of)
        prompt_ids = _padded(prompts, self.pad)
        cell_kinds, cell_colours, cell_boxes = (torch.from_numpy(np.stack(part)) for part in zip(*cells, strict=True))
        return Batch(
            pixels=_normalised(np.stack(pictures)),
            prompt_ids=prompt_ids,
            prompt_mask=(prompt_ids != self.pad).long(),
            labels=_padded(answers, -100),
            owner=torch.from_numpy(np.stack(owners)),
            cell_kinds=cell_kinds,
            cell_colours=cell_colours,
            cell_boxes=cell_boxes.float(),
            asked=torch.from_numpy(np.stack(asked)).float(),
            pointed=_padded(pointed, -1),
        )

    def question(self, kinds: np.ndarray, colours: np.ndarray, rng: Random) -> Asked:
        """One random question about a scene with these objects."""
        form = rng.choices([name for name, _ in MIXTURE], [weight for _, weight in MIXTURE])[0]
        if form == "caption":
            return Asked(CAPTION, tuple(range(len(kinds))), of_task=True)
        if form == "everything":
            named = [KIND_NAMES[kind] in self.taught for kind in kinds]
            return Asked(EVERYTHING, tuple(np.flatnonzero(named).tolist()), of_task=True)
        one = rng.randrange(len(kinds))
        if self.favourite and rng.random() < 0.5:
            favourites = np.flatnonzero(kinds == KIND_NAMES.index(self.favourite))
            one = int(rng.choice(favourites)) if len(favourites) else one
        kind, colour = int(kinds[one]), int(colours[one])
        if form == "unknown":
            word = rng.choice(TRAINING_WORDS)
            return Asked(f"{rng.choice(COLOUR_NAMES)} {word}" if rng.random() < 0.5 else word, ())
        if form == "other colour":
            near = [c for c in set(colours.tolist()) if not ((kinds == kind) & (colours == c)).any()]
            colour = rng.choice(near) if near and rng.random() < 0.7 else rng.randrange(len(COLOUR_NAMES))
        if form == "absent":
            kind, colour = rng.randrange(len(KIND_NAMES)), rng.randrange(len(COLOUR_NAMES))
        one_colour = form in ("colour kind", "other colour") or (rng.random() < 0.5 and form != "kind")
        if form == "any":
            phrase, hit = ANYTHING, np.ones(len(kinds), bool)
        else:
            phrase = KIND_NAMES[kind]
            hit = (kinds == kind) & (phrase in self.taught)
        if one_colour:
            phrase, hit = f"{COLOUR_NAMES[colour]} {phrase}", hit & (colours == colour)
        return Asked(phrase, tuple(np.flatnonzero(hit).tolist()))

    def answer(
        self, question: Asked, kinds: np.ndarray, colours: np.ndarray, boxes: np.ndarray
    ) -> tuple[list[int], list[int]]:
        """The answer's tokens, and for each the object that it locates, -1 for other tokens; the end alone for nothing.

        The phrase, or for the question about everything each kind in the order of its first box, and four location
        tokens per box from left to right. A phrase starts with a space, so that its tokens are the question's own: a
        name that was asked but never answered is a known token, which an adapter can learn to say.
        """
        ordered = sorted(question.hits, key=lambda i: (boxes[i, 0], boxes[i, 1]))
        if question.phrase == CAPTION:
            ids = self.encode(caption([self.named(kinds[i], colours[i]) for i in ordered]))
            return [*ids, self.eos], [-1] * (len(ids) + 1)
        groups: dict[str, list[int]] = {}
        for i in ordered:
            groups.setdefault(KIND_NAMES[kinds[i]] if question.of_task else question.phrase, []).append(i)
        tokens, spoken_of = [], []
        for label, members in groups.items():
            bins = np.clip(np.floor(boxes[members] * 1000), 0, 999).astype(int).ravel()
            ids = self.encode(f" {label}")
            tokens += [*ids, *(self.loc0 + bins).tolist()]
            spoken_of += [-1] * len(ids) + [i for i in members for _ in range(4)]
        return [*tokens, self.eos], [*spoken_of, -1]

    def named(self, kind: int, colour: int) -> str:
        """An object in a caption."""
        name = KIND_NAMES[kind]
        return f"{COLOUR_NAMES[colour]} {name if name in self.taught else ANYTHING}"

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, remembered."""
        if text not in self._ids:
            self._ids[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._ids[text]


class PooledScenes:
    """Endless random rows of the pool's chunks; chunks that are still being rendered join as they come."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.loaded: dict[Path, Chunk] = {}

    def draw(self, size: int, max_objects: int = 8) -> tuple[Chunk, np.ndarray]:
        """A chunk and `size` different rows of it, with at most `max_objects` in each scene."""
        path = self.rng.choice(chunks_on_disk())
        if path not in self.loaded:
            self.loaded[path] = read_chunk(path)
        chunk = self.loaded[path]
        rows = np.flatnonzero(np.diff(chunk.first) <= max_objects)
        return chunk, np.array(self.rng.sample(rows.tolist(), size))


def caption(names: list[str]) -> str:
    """A sentence of what there is to see, from left to right."""
    with_articles = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    return " and ".join(filter(None, (", ".join(with_articles[:-1]), with_articles[-1]))) + "."


def mirrored(boxes: np.ndarray) -> np.ndarray:
    """Boxes of the picture's mirror image, (n, 4) shares of the image."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)


def cell_owners(boxes: np.ndarray) -> np.ndarray:
    """Which object each image cell speaks for: (GRID * GRID,) indices into (n, 4) boxes, -1 for none.

    Cells in the middle of an object's box speak for it (at least the one that holds its centre); where several objects
    claim one, the smallest has it.
    """
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    reach = np.maximum(MIDDLE_SHARE / 2 * size, 0.5001 / GRID)
    along = (np.arange(GRID) + 0.5) / GRID
    inside_x = np.abs(along[None] - centre[:, :1]) <= reach[:, :1]
    inside_y = np.abs(along[None] - centre[:, 1:]) <= reach[:, 1:]
    claims = (inside_y[:, :, None] & inside_x[:, None, :]).reshape(len(boxes), -1)
    owner = np.full(GRID * GRID, -1)
    for i in np.argsort(-size.prod(1)):
        owner[claims[i]] = i
    return owner


def _normalised(pictures: np.ndarray) -> torch.Tensor:
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(255)
    return (pixels - torch.tensor(IMAGE_MEAN).view(3, 1, 1)) / torch.tensor(IMAGE_STD).view(3, 1, 1)


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
