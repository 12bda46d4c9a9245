"""One step of Florence-2's decoder for many answers at once, in memory that is allocated ahead.

The modules are the network's own, so their weights, adapters and dtypes work as they do there; what lies between them
is written out. A step has no shape that depends on data and never waits for the device, so a GPU can record it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from grounded_seg.detect.decoding.allowed_tokens import AllowedTokens
from grounded_seg.detect.decoding.attended import by_head, encoded_memory
from grounded_seg.detect.decoding.weight_order import Product

_FIRST_CAPACITY = 64
"""Tokens of an answer that there is memory for at first; it doubles when one is longer."""


@dataclass(frozen=True)
class GreedyRules:
    """Which tokens are forced, which one ends an answer, and how long an answer may be."""

    start_id: int
    end_id: int
    forced_first_id: int | None
    forced_last_id: int | None
    max_new_tokens: int
    """At least 1."""
    allowed: AllowedTokens | None = None
    """Which tokens may come next in answers of a form; None for any."""

    @property
    def last_free(self) -> int:
        """Index of the last token that isn't forced."""
        return self.max_new_tokens - (1 if self.forced_last_id is None else 2)

    @property
    def n_first(self) -> int:
        """Tokens that one pass says at the start: two where the first is known and not the only one."""
        return 1 if self.forced_first_id in (None, self.end_id) or self.max_new_tokens == 1 else 2


class DecoderRows:
    """Answers under way, a row each: what the decoder has to remember of them, and what it has said.

    Rows in use are the first ones; one that has ended is overwritten by the last.
    """

    def __init__(
        self, network: Any, rules: GreedyRules, location_ids: Sequence[int], n_rows: int, n_encoded: int
    ) -> None:
        """Allocate `n_rows` rows about questions of up to `n_encoded` encoder states."""
        decoder = network.model.language_model.decoder
        like = decoder.layernorm_embedding.weight
        self._decoder, self._rules = decoder, rules
        attention, device = decoder.layers[0].self_attn, like.device
        self.n_rows, self.n_encoded = n_rows, n_encoded
        self._encoded = encoded_memory(decoder, n_rows, n_encoded, like)
        # Added to scores: 0 for what counts, -inf for what doesn't.
        self._of_states = like.new_full((n_rows, 1, 1, n_encoded), -torch.inf)
        # Zeros, as what is masked must still be a number.
        shape = (len(decoder.layers), 2, n_rows, _FIRST_CAPACITY, attention.num_heads, attention.head_dim)
        self._said = like.new_zeros(shape)
        attentions = [layer.self_attn for layer in decoder.layers]
        self._project = [Product(one.q_proj, one.k_proj, one.v_proj) for one in attentions]
        self._out = [Product(one.out_proj) for one in attentions]
        self._perceptron = [(Product(layer.fc1), Product(layer.fc2)) for layer in decoder.layers]
        self._to_logits = Product(network.lm_head)
        self._locations = torch.tensor(location_ids, device=device)
        self._index = torch.arange(n_rows, device=device)
        self.tokens = torch.zeros(n_rows, dtype=torch.long, device=device)
        """The last token of each row, which the next step begins with."""
        self.positions = torch.zeros_like(self.tokens)
        """Where that token stands; the decoder's start token stands at 0."""
        self._forms = torch.zeros_like(self.tokens)
        """Where each answer is in its form: a state of `AllowedTokens`."""
        self.answers = torch.zeros(n_rows, _FIRST_CAPACITY, dtype=torch.long, device=device)
        self.log_probabilities = torch.zeros(n_rows, _FIRST_CAPACITY, device=device)
        self.location_probabilities = torch.zeros(n_rows, _FIRST_CAPACITY, len(location_ids), device=device)

    @property
    def capacity(self) -> int:
        """Tokens of an answer that there is memory for."""
        return self.answers.shape[1]

    def make_room(self, n_tokens: int) -> None:
        """Let answers have so many tokens."""
        while self.capacity < n_tokens:
            self._said = torch.cat([self._said, torch.zeros_like(self._said)], dim=3)
            for name in ("answers", "log_probabilities", "location_probabilities"):
                memory = getattr(self, name)
                setattr(self, name, torch.cat([memory, torch.zeros_like(memory)], dim=1))

    def start(self, first: int, encoded: torch.Tensor, mask: torch.Tensor, forms: Sequence[int] | None = None) -> None:
        """Begin answers in the rows from `first` on, one for each of encoder states (n, states, width) with a mask.

        `forms` are the states of `AllowedTokens` that they begin in, where the rules have some.
        """
        rows = slice(first, first + len(encoded))
        n_encoded = encoded.shape[1]
        self._of_states[rows] = -torch.inf
        self._of_states[rows, 0, 0, :n_encoded] = self._as_added(mask.bool())
        self._encoded.put(rows, encoded)
        if forms is not None:
            self._forms[rows] = torch.tensor(forms, device=encoded.device)
        tokens = [self._rules.start_id, self._rules.forced_first_id][: self._rules.n_first]
        begin = torch.tensor(tokens, device=encoded.device).expand(len(encoded), -1)
        self._advance(rows, begin, torch.arange(len(tokens), device=encoded.device).expand_as(begin), len(tokens))

    def step(self, n_rows: int, n_keys: int) -> None:
        """Add a token to each of the first rows; all of their answers have fewer than `n_keys` tokens before.

        Rows not in use may be among them: what becomes of these is never read.
        """
        positions = self.positions[:n_rows, None].clamp(max=n_keys - 1)
        self._advance(slice(0, n_rows), self.tokens[:n_rows, None], positions, n_keys)

    def drop(self, row: int, last: int) -> None:
        """Let the last row in use take the place of another."""
        if row == last:
            return
        self._encoded.move(last, row)
        self._said[:, :, row] = self._said[:, :, last]
        for memory in (
            *(self._of_states, self.tokens, self.positions, self._forms),
            *(self.answers, self.log_probabilities, self.location_probabilities),
        ):
            memory[row] = memory[last]

    def _advance(self, rows: slice, tokens: torch.Tensor, positions: torch.Tensor, n_keys: int) -> None:
        """Run tokens (n, t) at their positions through the decoder, and write down what comes after each of them."""
        decoder = self._decoder
        # BART's positions begin at 2.
        places = F.embedding(positions + decoder.embed_positions.offset, decoder.embed_positions.weight)
        states = decoder.layernorm_embedding(decoder.embed_tokens(tokens) + places).flatten(0, 1)
        where = self._index[rows, None].expand_as(positions), positions
        of_said = self._as_added(self._index_of_keys(n_keys) <= positions[:, None, :, None])
        of_states = self._of_states[rows]
        for index, layer in enumerate(decoder.layers):
            states = layer.self_attn_layer_norm(states + self._attend_to_said(index, states, rows, where, of_said))
            states = layer.encoder_attn_layer_norm(states + self._encoded.attend(index, rows, states, of_states))
            first, second = self._perceptron[index]
            states = layer.final_layer_norm(states + second(layer.activation_fn(first(states))))
        # Rows of the vocabulary's size are taken only for what is asked.
        logits = self._to_logits(states).float().view(*positions.shape, -1)
        chosen = self._choose(logits, rows, tokens, positions)
        total = logits.logsumexp(dim=-1, keepdim=True)
        self.answers[where] = chosen
        self.log_probabilities[where] = (logits.gather(-1, chosen[..., None]) - total)[..., 0]
        self.location_probabilities[where] = (logits[..., self._locations] - total).exp_()
        self.tokens[rows] = chosen[:, -1]
        self.positions[rows] = positions[:, -1] + 1

    def _choose(self, logits: torch.Tensor, rows: slice, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The token after each of tokens (n, t), from logits (n, t, vocabulary), which stay as they are.

        The one place where a rule changes what is chosen: probabilities are taken of the logits as they are.
        """
        rules, allowed = self._rules, self._rules.allowed
        if allowed is None:
            chosen = logits.argmax(dim=-1)
        else:
            forms = self._forms[rows, None]
            if tokens.shape[1] > 1:
                # The second token is what was chosen after the first.
                forms = torch.cat([forms, allowed.after(forms, tokens[:, 1:])], dim=1)
            two_before = self.answers[rows].gather(1, (positions - 2).clamp(min=0))
            chosen = allowed.best(logits, forms, rules.last_free - positions, two_before)
        if rules.forced_first_id is not None:
            chosen = chosen.masked_fill(positions == 0, rules.forced_first_id)
        if rules.forced_last_id is not None:
            chosen = chosen.masked_fill(positions == rules.max_new_tokens - 1, rules.forced_last_id)
        if allowed is not None:
            self._forms[rows] = allowed.after(forms[:, -1], chosen[:, -1])
        return chosen

    def _index_of_keys(self, n_keys: int) -> torch.Tensor:
        return torch.arange(n_keys, device=self._index.device)

    def _as_added(self, counts: torch.Tensor) -> torch.Tensor:
        """What is added to scores, made once for all layers: attention would make it of booleans in each."""
        return torch.zeros_like(counts, dtype=self._said.dtype).masked_fill_(~counts, -torch.inf)

    def _attend_to_said(
        self,
        index: int,
        states: torch.Tensor,
        rows: slice,
        where: tuple[torch.Tensor, torch.Tensor],
        added: torch.Tensor,
    ) -> torch.Tensor:
        """Add keys and values of states (n t, width) to what a layer remembers, and attend to all of it."""
        attention, said = self._decoder.layers[index].self_attn, self._said[index]
        queries, *new = self._project[index].parts(states)
        for memory, one in zip(said, new, strict=True):
            memory[where] = one.reshape(*where[1].shape, attention.num_heads, -1)
        keys, values = said[:, rows, : added.shape[-1]].transpose(2, 3).unbind(0)
        queries = by_head(attention, queries, len(keys))
        found = F.scaled_dot_product_attention(queries, keys, values, added, scale=attention.scaling)
        return self._out[index](found.transpose(1, 2).reshape(states.shape))
