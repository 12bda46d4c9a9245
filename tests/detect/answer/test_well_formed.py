"""What a well-formed answer is, by hand, and the automaton that follows one, against that definition."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_florence import make_tokenizer

from grounded_seg.detect.answer.automaton import BEGIN, END, LESS_SIGN, NEVER, TOKEN_KINDS, automaton
from grounded_seg.detect.answer.grammar import shapes_from_pieces
from grounded_seg.detect.answer.pieces import pieces_from_text
from grounded_seg.detect.answer.well_formed import AnswerForm, form_of, is_well_formed
from grounded_seg.detect.model.vocabulary import Vocabulary
from grounded_seg.detect.tasks import TASKS, TaskOutput

VOCABULARY = Vocabulary(make_tokenizer())
NAMES = {"t": "a", LESS_SIGN: "<", "s": "<sep>", "p": "<poly>", "q": "</poly>", "m": "<and>", BEGIN: "<s>", END: "</s>"}
IDS = {kind: VOCABULARY.id_by_token()[name] for kind, name in NAMES.items()}
BOX = "<loc_1><loc_2><loc_1><loc_900>"


def ids_of(text: str) -> list[int]:
    """The tokens of an answer as the model says it: `<loc_5>` is one of them."""
    return VOCABULARY.encode(text)[1:-1]


def is_well(task: str, text: str) -> bool:
    return is_well_formed(form_of(TASKS[task]), ids_of(text), VOCABULARY)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("frame", ["", "</s>", "<s></s>", "<s>"])
def test_the_empty_answer_is_well_formed(task: str, frame: str) -> None:
    assert is_well(task, frame)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("CAPTION", "<s>a red car < a house</s>"),
        ("REGION_TO_CATEGORY", f"car{BOX}</s>"),
        ("OD", f"car{BOX}wheel{BOX}{BOX}</s>"),
        ("OD", f"<s>car{BOX}"),
        ("CAPTION_TO_PHRASE_GROUNDING", f"a <b> car{BOX}"),
        ("REGION_PROPOSAL", f"{BOX}{BOX}</s>"),
        ("OPEN_VOCABULARY_DETECTION", f"car{BOX}leaf{BOX}"),
        ("OPEN_VOCABULARY_DETECTION", f"leaf<poly>{BOX}<sep>{BOX}</poly><poly>{BOX}</poly>car<poly>{BOX}</poly>"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"{BOX}<loc_0><loc_0><sep>{BOX}"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"<poly>{BOX}</poly><poly>{BOX}</poly>"),
        ("OCR_WITH_REGION", f"STOP <{BOX}{BOX}GO{BOX}<loc_9><loc_9><loc_0><loc_0></s>"),
    ],
)
def test_answers_of_every_form_are_well_formed(task: str, text: str) -> None:
    assert is_well(task, text)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("CAPTION", f"a car{BOX}"),
        ("CAPTION", "a<s>b"),
        ("REGION_TO_CATEGORY", "car<loc_1>"),
        ("OD", "car<loc_1><loc_2><loc_3>"),
        ("OD", f"car{BOX}<loc_1>"),
        ("OD", "car"),
        ("OD", BOX),
        ("OD", f"car<{BOX}"),
        ("OD", f"car{BOX}<sep>"),
        ("OD", f"car<pad>{BOX}"),
        ("OD", "car<loc_5><loc_5><loc_4><loc_9>"),
        ("OD", "car<loc_5><loc_5><loc_9><loc_4>"),
        ("REGION_PROPOSAL", f"car{BOX}"),
        ("REGION_PROPOSAL", f"{BOX}</s></s>"),
        ("OPEN_VOCABULARY_DETECTION", f"car{BOX}leaf<poly>{BOX}</poly>"),
        ("OPEN_VOCABULARY_DETECTION", f"leaf<poly>{BOX}"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"{BOX}<loc_1>"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"{BOX}<sep><sep>{BOX}"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"<sep>{BOX}"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"{BOX}<sep>"),
        ("REFERRING_EXPRESSION_SEGMENTATION", f"<poly>{BOX}</poly>{BOX}"),
        ("REFERRING_EXPRESSION_SEGMENTATION", "<loc_1><loc_1>"),
        ("OCR_WITH_REGION", f"STOP{BOX}"),
        ("OCR_WITH_REGION", f"STOP{BOX}{BOX}{BOX}"),
    ],
)
def test_broken_answers_are_not_well_formed(task: str, text: str) -> None:
    assert not is_well(task, text)
    # A question that is of no task may be answered with anything.
    assert is_well_formed(form_of(None), ids_of(text), VOCABULARY)


def accepts(form: AnswerForm, token_ids: Sequence[int]) -> bool:
    """Whether the automaton lets an answer with its `</s>` through, token by token, as a loop would."""
    rules, kind_by_id = automaton(), {token_id: kind for kind, token_id in IDS.items()}
    state, bins = rules.starts[form], dict(zip(VOCABULARY.location_ids, range(1000), strict=True))
    for place, token_id in enumerate([*token_ids, IDS[END]]):
        column = TOKEN_KINDS.index(kind_by_id.get(token_id, "l"))
        n_after = len(token_ids) - place - 1
        if token_id != IDS[END] and rules.n_needed[state, column] > n_after:
            return False
        if rules.n_needed[state, column] == NEVER:
            return False
        if rules.is_ordered[state] and bins[token_id] < bins[token_ids[place - 2]]:
            return False
        state = int(rules.next_state[state, column])
    return True


locations = st.integers(0, 3).map(lambda index: VOCABULARY.location_ids[index])
tokens = st.one_of(st.sampled_from([IDS[kind] for kind in "tuspqmb"]), locations, locations)
shapes = st.sampled_from(
    [ids_of(text) for text in ("a", BOX, f"{BOX}{BOX}", f"<poly>{BOX}</poly>", f"a{BOX}", f"a{BOX}{BOX}", "<sep>")]
)
answers = st.one_of(st.lists(tokens, max_size=10), st.lists(shapes, max_size=5).map(lambda parts: [*chain(*parts)]))


@given(st.sampled_from(AnswerForm), answers)
@example(AnswerForm.LABELLED_BOXES_OR_OUTLINES, ids_of(f"a<poly>{BOX}</poly>"))
def test_the_automaton_accepts_just_what_is_well_formed(form: AnswerForm, token_ids: list[int]) -> None:
    assert accepts(form, token_ids) == is_well_formed(form, [*token_ids, IDS[END]], VOCABULARY)


def test_every_state_leads_to_an_end() -> None:
    rules = automaton()
    *states, after_the_end = range(len(rules.n_needed))
    assert (rules.n_needed[states].min(axis=1) <= 8).all()
    assert (rules.n_needed[after_the_end] == NEVER).all()
    # What the tables say is near the end is: one token of a kind with n needed leads to where n - 1 are.
    nearest = rules.n_needed.min(axis=1)
    is_end = np.array(TOKEN_KINDS) == END
    at_end = rules.n_needed[:, is_end][:, 0] == 0
    for state, column in np.argwhere((rules.n_needed < NEVER) & ~is_end):
        after = rules.next_state[state, column]
        assert rules.n_needed[state, column] == (0 if at_end[after] else nearest[after] + 1)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.gives is not TaskOutput.TEXT])
def test_the_reader_leaves_nothing_out_of_a_well_formed_answer(task: object) -> None:
    [task] = [one for one in TASKS.values() if one == task]
    text = {
        TaskOutput.BOXES: f"{BOX}{BOX}",
        TaskOutput.POLYGONS: f"<poly>{BOX}<sep>{BOX}</poly><poly>{BOX}</poly>",
        TaskOutput.QUADS: f"car{BOX}{BOX}dog{BOX}{BOX}",
    }.get(task.gives, f"car{BOX}{BOX}dog{BOX}")
    assert is_well(task.name, text)
    found = shapes_from_pieces(task.gives, pieces_from_text(text))
    assert sum(len(shape.location_positions) for shape in found) == text.count("<loc_")
