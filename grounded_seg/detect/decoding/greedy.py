"""Greedy answers by a decoder loop of our own: the tokens of transformers' `generate`, with their probabilities.

Questions wait until a row is free and leave when they have ended. Which of them are in work together, and so the last
bits of their numbers, depends on the questions of one call alone, and on nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import GenerationConfig
from transformers.models.bart.modeling_bart import BartDecoder, BartDecoderLayer

from grounded_seg.detect.answer.well_formed import AnswerForm
from grounded_seg.detect.decoding.decoder_step import DecoderRows, GreedyRules
from grounded_seg.detect.decoding.recorded_steps import RecordedSteps

N_AT_ONCE = 16
"""Questions that are in work together, at most: bounds the memory."""
_LEAST_JOINING = 4
"""Rows that are free before waiting questions join: fewer at a time would be slow to encode."""
_MATTERS_NOT = {"_from_model_config", "transformers_version", "use_cache", "output_attentions", "output_hidden_states"}
"""Settings of generation that change no token."""

Encode = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]
"""Encoder states of some questions, by their index, and their mask."""


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One answer: its tokens without the start, and what each step says of them."""

    token_ids: tuple[int, ...]
    log_probabilities: npt.NDArray[np.float32]
    """(n_tokens,)"""
    locations: npt.NDArray[np.float32]
    """(n_tokens, locations) probabilities."""


def can_decode(network: Any, given: GenerationConfig) -> bool:
    """Whether the loop gives what `generate` would with the `given` rules; all else is left to `generate`.

    Not with beams or sampling, with further rules of the network's own that would fill the gaps of the given ones, with
    a decoder of another kind or with quantized weights, or while dropout is on.
    """
    decoder = network.model.language_model.decoder
    own = network.generation_config.to_diff_dict().keys() - given.to_diff_dict().keys() - _MATTERS_NOT
    forced = (given.forced_bos_token_id, given.forced_eos_token_id)
    return (
        given.num_beams == 1
        and not given.do_sample
        and not given.no_repeat_ngram_size
        and not own
        and all(one is None or isinstance(one, int) for one in forced)
        and type(decoder) is BartDecoder
        and all(type(layer) is BartDecoderLayer for layer in decoder.layers)
        # Quantized layers are subclasses.
        and all(type(one) is nn.Linear for one in decoder.modules() if isinstance(one, nn.Linear))
        and not decoder.training
    )


class GreedyLoop:
    """The loop of one model; on a GPU it keeps its memory, and the steps recorded there, from call to call."""

    def __init__(self, location_ids: Sequence[int]) -> None:
        self._location_ids = location_ids
        self._kept: tuple[Any, RecordedSteps] | None = None

    @torch.inference_mode()
    def answers(
        self,
        network: Any,
        encode: Encode,
        lengths: Sequence[int],
        rules: GreedyRules,
        forms: Sequence[AnswerForm] | None = None,
    ) -> list[TokenRow]:
        """The most probable token, step by step, for each question.

        `network` is a Florence-2 in evaluation mode; `lengths` are the questions' in encoder states, at least one;
        `forms` are those of their answers, where the rules restrict them.
        """
        starts = None if rules.allowed is None or forms is None else [rules.allowed.starts[form] for form in forms]
        steps = self._steps(network, lengths, rules)
        rows = steps.rows
        waiting = list(range(len(lengths)))
        answers: list[TokenRow | None] = [None] * len(lengths)
        active: list[int] = []  # the question of each row in use
        said: list[int] = []  # how many tokens each of them has been answered in
        while waiting or active:
            n_free = min(len(waiting), rows.n_rows - len(active))
            if n_free and (not active or n_free >= min(_LEAST_JOINING, len(waiting))):
                joining, waiting = waiting[:n_free], waiting[n_free:]
                begin = () if starts is None else ([starts[index] for index in joining],)
                rows.start(len(active), *encode(joining), *begin)
                active += joining
                said += [rules.n_first] * n_free
            else:
                steps.step(len(active), max(said) + 1)
                said = [n + 1 for n in said]
            last = rows.tokens[: len(active)].tolist()
            for row in reversed(range(len(active))):
                if last[row] == rules.end_id or said[row] == rules.max_new_tokens:
                    answers[active[row]] = _answer(rows, row, said[row])
                    rows.drop(row, len(active) - 1)
                    for memory in (active, said):
                        memory[row] = memory[-1]
                        memory.pop()
        return [one for one in answers if one is not None]

    def _steps(self, network: Any, lengths: Sequence[int], rules: GreedyRules) -> "RecordedSteps | _PlainSteps":
        """Rows for these questions; on a GPU those of an earlier call, where they fit."""
        n_rows, n_encoded = min(len(lengths), N_AT_ONCE), max(lengths)
        if network.device.type != "cuda" or not _is_bare(network):
            return _PlainSteps(DecoderRows(network, rules, self._location_ids, n_rows, n_encoded))
        # What was recorded reads the weights where they were, and knows the rules.
        key = rules, tuple(one.data_ptr() for one in (*network.parameters(), *network.buffers())), network.dtype
        if self._kept is not None and self._kept[0] == key and self._kept[1].rows.n_encoded >= n_encoded:
            return self._kept[1]
        n_encoded = -(-n_encoded // 64) * 64
        steps = RecordedSteps(DecoderRows(network, rules, self._location_ids, N_AT_ONCE, n_encoded))
        self._kept = key, steps
        return steps


class _PlainSteps:
    """Steps that aren't recorded."""

    def __init__(self, rows: DecoderRows) -> None:
        self.rows = rows

    def step(self, n_rows: int, n_keys: int) -> None:
        self.rows.make_room(n_keys)
        self.rows.step(n_rows, n_keys)


def _is_bare(network: Any) -> bool:
    """Whether no adapter is beside the decoder's weights: one may be switched off, which no recording would know."""
    parts = (*network.model.language_model.decoder.modules(), network.lm_head)
    return not any(hasattr(one, "base_layer") for one in parts)


def _answer(rows: DecoderRows, row: int, n_tokens: int) -> TokenRow:
    """A row's answer, copied off the device, as the row is used again."""
    log_probabilities, locations = (
        memory[row, :n_tokens].to("cpu", copy=True).numpy()
        for memory in (rows.log_probabilities, rows.location_probabilities)
    )
    return TokenRow(tuple(rows.answers[row, :n_tokens].tolist()), log_probabilities, locations)
