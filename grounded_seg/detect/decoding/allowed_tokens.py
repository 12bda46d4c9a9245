"""Which tokens may come next, so that every answer has its task's form: for the loop of our own and for `generate`.

Only what is chosen is restricted. Probabilities, and so scores, are taken of the logits as the model gave them: a box
that the model was made to finish has the probability that the model gave it.

All is tensors of fixed shapes: a GPU can record it, and rows may answer different tasks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import LogitsProcessor

from grounded_seg.detect.answer.automaton import BEGIN, END, LESS_SIGN, TOKEN_KINDS, automaton
from grounded_seg.detect.answer.pieces import LOCATION, OTHER_MARK, TEXT, kind_of_token
from grounded_seg.detect.answer.tokens import N_BINS
from grounded_seg.detect.answer.well_formed import AnswerForm
from grounded_seg.detect.model.vocabulary import Vocabulary

_TEXT = TOKEN_KINDS.index(TEXT)


class AllowedTokens:
    """The automaton of `answer/automaton.py` over the tokens of a vocabulary, on a device.

    Most tokens are text, and all of these are allowed or none. The others, some thousand, are looked at one by one.
    """

    def __init__(self, vocabulary: Vocabulary, n_tokens: int, device: torch.device) -> None:
        """Make the tables for logits of `n_tokens`, which may be more than the vocabulary has."""
        kinds, bins = _kinds_and_bins(vocabulary, n_tokens)
        [others] = np.nonzero(kinds != _TEXT)
        rules = automaton()
        self.starts: Mapping[AnswerForm, int] = rules.starts
        """The state that an answer of each form begins in."""
        self._next_state, self._n_needed, self._is_ordered = (
            torch.from_numpy(table).to(device) for table in (rules.next_state, rules.n_needed, rules.is_ordered)
        )
        self._kinds, self._bins, self._others = (torch.from_numpy(one).to(device) for one in (kinds, bins, others))
        self._kinds_of_others = self._kinds[self._others]
        # Only locations may be too small.
        is_location = self._kinds_of_others == TOKEN_KINDS.index(LOCATION)
        self._bins_of_others = self._bins[self._others].masked_fill(~is_location, N_BINS)

    def after(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The states after tokens, of the same shape."""
        return self._next_state[states, self._kinds[tokens]]

    def best(
        self, logits: torch.Tensor, states: torch.Tensor, n_left: torch.Tensor, two_before: torch.Tensor
    ) -> torch.Tensor:
        """The allowed token of the highest logit; of equal ones the first, as argmax has it.

        Args:
            logits: (..., n_tokens), left as they are, though the memory is used.
            states: (...) state of each answer.
            n_left: (...) how many tokens an answer may have after this one, before its end.
            two_before: (...) the token two before the one that is chosen; any, where there is none.
        """
        kinds, others = self._allowed(states, n_left, two_before)
        of_others = logits[..., self._others]
        value, at = of_others.masked_fill(~others, -torch.inf).max(dim=-1)
        other = self._others[at]
        # A copy of all logits would take longer than all the rest.
        logits.index_fill_(-1, self._others, -torch.inf)
        text = logits.argmax(dim=-1)
        of_text = logits.gather(-1, text[..., None])[..., 0].masked_fill(~kinds[..., _TEXT], -torch.inf)
        logits.index_copy_(-1, self._others, of_others)
        return torch.where((value > of_text) | ((value == of_text) & (other < text)), other, text)

    def masked(
        self, scores: torch.Tensor, states: torch.Tensor, n_left: torch.Tensor, two_before: torch.Tensor
    ) -> torch.Tensor:
        """A copy of scores (n, n_tokens) with -inf for what isn't allowed; the others are as for `best`, (n,)."""
        kinds, others = self._allowed(states, n_left, two_before)
        masked = scores.masked_fill(~kinds[:, _TEXT, None], -torch.inf)
        return masked.index_copy_(-1, self._others, scores[:, self._others].masked_fill(~others, -torch.inf))

    def _allowed(
        self, states: torch.Tensor, n_left: torch.Tensor, two_before: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Whether each kind, (..., kinds), and each token but text, (..., others), is allowed."""
        kinds = self._n_needed[states] <= n_left[..., None]
        least = self._bins[two_before] * self._is_ordered[states]
        return kinds, kinds[..., self._kinds_of_others] & (self._bins_of_others >= least[..., None])


class WellFormed(LogitsProcessor):  # type: ignore[misc]
    """Scores of beams for `generate`, with -inf for tokens that would break an answer's form; for one call of it."""

    def __init__(
        self, allowed: AllowedTokens, forms: Sequence[AnswerForm], *, beams: int, last: int, first_is_forced: bool
    ) -> None:
        """Take the form of each answer.

        Args:
            allowed: The tables.
            forms: Of each question.
            beams: Rows of each question.
            last: Index of the last token that isn't forced.
            first_is_forced: Whether the first token is left to the model's own rule.
        """
        self._allowed, self._beams, self._last, self._first = allowed, beams, last, int(first_is_forced)
        device = allowed._kinds.device
        starts = torch.tensor([allowed.starts[form] for form in forms], device=device)
        self._states = starts.repeat_interleave(beams)
        self._said: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the scores (rows, n_tokens) of what comes after ids (rows, tokens), a step after the other."""
        position = input_ids.shape[1] - 1
        if self._said is not None:
            origins = self._origins(self._said, input_ids)
            self._states = self._allowed.after(self._states[origins], input_ids[:, -1])
        self._said = input_ids
        if not self._first <= position <= self._last:
            return scores
        n_left = torch.full_like(self._states, self._last - position)
        return self._allowed.masked(scores, self._states, n_left, input_ids[:, max(0, position - 1)])

    def _origins(self, said: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The row of the step before that each row goes on from: beams change places, but never between questions."""
        before = torch.unflatten(said, 0, (-1, 1, self._beams))
        now = torch.unflatten(input_ids[:, :-1], 0, (-1, self._beams, 1))
        beam = (before == now).all(dim=-1).int().argmax(dim=-1)
        question = torch.arange(len(beam), device=beam.device)[:, None]
        rows: torch.Tensor = (question * self._beams + beam).flatten()
        return rows


def _kinds_and_bins(vocabulary: Vocabulary, n_tokens: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The kind of each token, as the column of its tables, and its bin, 0 for all but locations; both (n_tokens,)."""
    # What has logits and no name is never said.
    kinds = np.full(n_tokens, TOKEN_KINDS.index(OTHER_MARK), dtype=np.int64)
    bins = np.zeros(n_tokens, dtype=np.int64)
    for name, token_id in vocabulary.id_by_token().items():
        if token_id >= n_tokens:
            continue
        kind, location = kind_of_token(name)
        if kind == TEXT and name.endswith("<"):
            kind = LESS_SIGN
        kinds[token_id], bins[token_id] = TOKEN_KINDS.index(kind), max(0, location)
    kinds[vocabulary.bos_id], kinds[vocabulary.eos_id] = TOKEN_KINDS.index(BEGIN), TOKEN_KINDS.index(END)
    return kinds, bins
