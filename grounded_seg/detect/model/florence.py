"""Florence-2 as a model that is asked: images and questions in, token ids with their probabilities out.

The network is transformers' own. The vision tower runs once per image, whatever the number of questions; encoder and
decoder run over a batch of (image, question) pairs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Florence2ForConditionalGeneration, GenerationConfig, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from grounded_seg.detect.answer.box_scores import TokenEvidence
from grounded_seg.detect.answer.well_formed import AnswerForm, form_of
from grounded_seg.detect.decoding.allowed_tokens import AllowedTokens, WellFormed
from grounded_seg.detect.decoding.decoder_step import GreedyRules
from grounded_seg.detect.decoding.greedy import N_AT_ONCE, Encode, GreedyLoop, can_decode
from grounded_seg.detect.model.adapters import NamedAdapters
from grounded_seg.detect.model.logits import be_exact_for, use_float32_logits
from grounded_seg.detect.model.pixels import PixelSettings, pixel_values
from grounded_seg.detect.model.vocabulary import Vocabulary
from grounded_seg.detect.tasks import MAX_NEW_TOKENS, Task
from grounded_seg.errors import UsageError
from grounded_seg.records import Image


@dataclass(frozen=True)
class AnswerRules:
    """How a model's answers begin and end: part of the model, not of what is asked."""

    start_id: int
    """The decoder's first token, which isn't part of the answer."""
    forced_first_id: int | None
    """Token that every answer begins with, where the model was trained that way."""
    forced_last_id: int | None
    """Token that ends an answer that is cut off."""
    stop_beams_early: bool | str
    length_penalty: float
    """transformers' `early_stopping` and `length_penalty`, of beam search."""
    space_before_labels: bool = False
    """Whether this model puts a space before each label, which published ones don't; its training data must too."""


@dataclass(frozen=True, eq=False)
class GeneratedAnswer:
    """What the model said to one question."""

    token_ids: tuple[int, ...]
    """Without the decoder's start token; up to and with `</s>`, where the answer wasn't cut off."""
    evidence: TokenEvidence


class FlorenceModel:
    """A loaded Florence-2 with its tokenizer; `load.load_florence` makes one."""

    def __init__(
        self,
        network: Florence2ForConditionalGeneration,
        vocabulary: Vocabulary,
        pixels: PixelSettings,
        rules: AnswerRules,
    ) -> None:
        self.network = network
        self.vocabulary = vocabulary
        self.pixels = pixels
        self.rules = rules
        self._loop = GreedyLoop(vocabulary.location_ids)
        self._allowed: tuple[tuple[torch.device, int], AllowedTokens] | None = None
        self.adapters: NamedAdapters | None = None
        """The same network with adapters beside its weights, for `using`."""

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network to where it runs; its weights take the dtype, its logits stay float32.

        Weights that were rounded once stay rounded, also in float32.
        """
        self.network.to(device=device)
        if dtype is not self.network.dtype:
            use_float32_logits(self.network, self.vocabulary.location_ids, dtype)

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """One of the adapters beside the weights switched on, with images as in its training; None for the base."""
        named = {} if self.adapters is None else self.adapters.image_sides
        if adapter is not None and adapter not in named:
            loaded = f", there are {', '.join(named)}" if named else ""
            raise UsageError(f"no adapter {adapter!r} is loaded{loaded}; give it to load_detector(adapters=...)")
        if self.adapters is None:
            yield
        elif adapter is None:
            with self.adapters.model.disable_adapter():
                yield
        else:
            own = self.pixels
            self.adapters.model.set_adapter(adapter)
            self.pixels = replace(own, square_side=named[adapter])
            try:
                yield
            finally:
                self.pixels = own

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Image]) -> torch.Tensor:
        """The image tokens of at least one image, (n, n_image_tokens, width), on the model's device."""
        values = pixel_values(images, self.pixels, self.network.device).to(self.network.dtype)
        features: torch.Tensor = self.network.get_image_features(values).pooler_output
        return features

    @torch.inference_mode()
    def answer(
        self,
        features: torch.Tensor,
        questions: Sequence[str],
        *,
        about: Sequence[int] | None = None,
        beams: int = 1,
        max_new_tokens: int = MAX_NEW_TOKENS,
        tasks: Sequence[Task | None] | None = None,
    ) -> list[GeneratedAnswer]:
        """The answer to each question about its image.

        Questions of one call are in work together, as many as memory is meant for, so the last bits of their numbers
        depend on each other.

        Args:
            features: (n, n_image_tokens, width), of n images.
            questions: Texts, each a task's `question`; at least one, none longer than the model's positions.
            about: Which of the n images each question is about; by default each about its own.
            beams: Beam width; 1 is greedy.
            max_new_tokens: Longest answer; never more than the decoder has positions for.
            tasks: The task of each question, None for one that is of none: its answers get the task's form, also where
                they are cut off (`answer/well_formed.py`). Without them, and for no task, any token may come next.
        """
        images = range(len(questions)) if about is None else about
        lengths = self._lengths(features, questions)
        be_exact_for(self.network.lm_head, beams)
        generation = self._generation(beams, max_new_tokens)
        forms = None if tasks is None else [form_of(task) for task in tasks]

        def encode(some: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
            return self._encode(features[[images[index] for index in some]], [questions[index] for index in some])

        if can_decode(self.network, generation):
            return self._greedy_answers(encode, lengths, generation.max_new_tokens, forms)
        parts = (range(len(questions))[start : start + N_AT_ONCE] for start in range(0, len(questions), N_AT_ONCE))
        return [
            one
            for some in parts
            for one in self._generated(*encode(some), generation, forms and [forms[index] for index in some])
        ]

    def _greedy_answers(
        self, encode: Encode, lengths: Sequence[int], max_new_tokens: int, forms: Sequence[AnswerForm] | None = None
    ) -> list[GeneratedAnswer]:
        """Answers by the loop of our own, to questions of these lengths in encoder states."""
        rules = GreedyRules(
            start_id=self.rules.start_id,
            end_id=self.vocabulary.eos_id,
            forced_first_id=self.rules.forced_first_id,
            forced_last_id=self.rules.forced_last_id,
            max_new_tokens=max_new_tokens,
            allowed=None if forms is None else self._allowed_tokens(),
        )
        rows = self._loop.answers(self.network, encode, lengths, rules, forms)
        return [GeneratedAnswer(one.token_ids, TokenEvidence(one.log_probabilities, one.locations)) for one in rows]

    def _allowed_tokens(self) -> AllowedTokens:
        """The tables for this vocabulary, made once for a device."""
        key = self.network.device, self.network.config.text_config.vocab_size
        if self._allowed is None or self._allowed[0] != key:
            self._allowed = key, AllowedTokens(self.vocabulary, key[1], key[0])
        return self._allowed[1]

    def _generated(
        self,
        encoded: torch.Tensor,
        mask: torch.Tensor,
        generation: GenerationConfig,
        forms: Sequence[AnswerForm] | None = None,
    ) -> Iterator[GeneratedAnswer]:
        """Answers by transformers' `generate`, for what the loop of our own can't do, as beams."""
        processors = LogitsProcessorList()
        if forms is not None:
            is_forced = (generation.forced_bos_token_id is not None, generation.forced_eos_token_id is not None)
            last = generation.max_new_tokens - 1 - is_forced[1]
            allowed, beams = self._allowed_tokens(), generation.num_beams
            processors.append(WellFormed(allowed, forms, beams=beams, last=last, first_is_forced=is_forced[0]))
        sequences = self.network.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=mask,
            generation_config=generation,
            logits_processor=processors,
        )
        # The answers, run through the decoder once more, for the probabilities of those that were kept.
        hidden = self.network.model.language_model.decoder(
            input_ids=sequences[:, :-1],
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return (self._answer(ids, states) for ids, states in zip(sequences[:, 1:], hidden, strict=True))

    def _lengths(self, features: torch.Tensor, questions: Sequence[str]) -> list[int]:
        """How many encoder states each question has; a `UsageError` if it is more than the model takes."""
        n_tokens = [len(self.vocabulary.encode(question)) for question in questions]
        room = self.network.config.text_config.max_position_embeddings - features.shape[1]
        if max(n_tokens) > room:
            raise UsageError(f"a prompt is too long: it has {max(n_tokens)} tokens, the model takes {room}")
        return [features.shape[1] + n for n in n_tokens]

    def _encode(self, features: torch.Tensor, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the text encoder over image tokens and question, shorter questions padded, and their mask."""
        rows = [torch.tensor(self.vocabulary.encode(question)) for question in questions]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.vocabulary.pad_id).to(features.device)
        lengths = torch.tensor([features.shape[1] + len(row) for row in rows], device=features.device)
        mask = (torch.arange(features.shape[1] + ids.shape[1], device=features.device) < lengths[:, None]).long()
        inputs = torch.cat([features, self.network.get_input_embeddings()(ids)], dim=1)
        encoder = self.network.model.language_model.encoder
        return encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state, mask

    def _generation(self, beams: int, max_new_tokens: int) -> GenerationConfig:
        return GenerationConfig(
            num_beams=beams,
            do_sample=False,
            max_new_tokens=min(max_new_tokens, self.network.config.text_config.max_position_embeddings),
            no_repeat_ngram_size=0,
            # These two mean nothing without beams, and transformers says so each time.
            early_stopping=beams > 1 and self.rules.stop_beams_early,
            length_penalty=self.rules.length_penalty if beams > 1 else 1.0,
            bos_token_id=self.vocabulary.bos_id,
            pad_token_id=self.vocabulary.pad_id,
            eos_token_id=self.vocabulary.eos_id,
            decoder_start_token_id=self.rules.start_id,
            forced_bos_token_id=self.rules.forced_first_id,
            forced_eos_token_id=self.rules.forced_last_id,
        )

    def _answer(self, ids: torch.Tensor, states: torch.Tensor) -> GeneratedAnswer:
        """One row, cut after its end, with what scores need of the vocabulary's probabilities."""
        ends = (ids == self.vocabulary.eos_id).nonzero()
        n_tokens = int(ends[0]) + 1 if len(ends) else len(ids)
        # Row by row: the logits of a whole batch of long answers over 51,000 tokens would take gigabytes.
        logits = self.network.lm_head(states[:n_tokens])
        total = logits.logsumexp(dim=1, keepdim=True)
        chosen = logits.gather(1, ids[:n_tokens, None]) - total
        locations = (logits[:, list(self.vocabulary.location_ids)] - total).exp()
        evidence = TokenEvidence(chosen[:, 0].cpu().numpy(), locations.cpu().numpy())
        return GeneratedAnswer(tuple(ids[:n_tokens].tolist()), evidence)
