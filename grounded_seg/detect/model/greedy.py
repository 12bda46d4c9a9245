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

from grounded_seg.detect.model.decoder_step import DecoderRows, GreedyRules

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


@torch.inference_mode()
def greedy_rows(
    network: Any,
    encode: Encode,
    lengths: Sequence[int],
    rules: GreedyRules,
    location_ids: Sequence[int],
) -> list[TokenRow]:
    """The most probable token, step by step, for each question.

    `network` is a Florence-2 in evaluation mode; `lengths` are those of the questions' encoder states, at least one.
    """
    waiting = list(range(len(lengths)))
    rows = DecoderRows(network, rules, location_ids, min(len(waiting), N_AT_ONCE), max(lengths))
    answers: list[TokenRow | None] = [None] * len(lengths)
    active: list[int] = []
    """The question of each row in use."""
    said: list[int] = []
    """How many tokens each of them has been answered in."""
    while waiting or active:
        n_free = min(len(waiting), N_AT_ONCE - len(active))
        if n_free and (not active or n_free >= min(_LEAST_JOINING, len(waiting))):
            joining, waiting = waiting[:n_free], waiting[n_free:]
            rows.start(len(active), *encode(joining))
            active += joining
            said += [rules.n_first] * n_free
        else:
            n_keys = max(said) + 1
            rows.make_room(n_keys)
            rows.step(len(active), n_keys)
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


def _answer(rows: DecoderRows, row: int, n_tokens: int) -> TokenRow:
    """A row's answer, copied off the device, as the row is used again."""
    log_probabilities, locations = (
        memory[row, :n_tokens].to("cpu", copy=True).numpy()
        for memory in (rows.log_probabilities, rows.location_probabilities)
    )
    return TokenRow(tuple(rows.answers[row, :n_tokens].tolist()), log_probabilities, locations)
