"""Compare the decoder loop with transformers' `generate`: the same tokens and scores, and the time of both in turns.

    python benchmarks/decoder_speed.py --tokenizer FOLDER [--size base] [--dtype float32] [--output decoder.json]

Both answer the same questions from the same encoder states, with weights of their own: a loaded detector keeps them in
another order in memory. The usual way is `generate` and a second pass through the decoder for the probabilities, as
this package did it before. The weights are random, so questions are about random
image tokens; answers never end by themselves and have exactly 24 tokens. The limit is the time to read the decoder's
weights once for each pass, at the rate of a large sum. In half precision tokens are compared too, but may differ.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from full_size_florence import SIZES, as_loaded, full_size_model
from must_hold import MustHold, no_bfloat16, not_full_size
from timing import seconds_of

from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype
from grounded_seg.settings import Precision

N_TOKENS = 24
N_QUESTIONS = 20
"""Whose tokens are compared, beside those that are timed."""
_WORDS = ("red", "car", "a", "small", "house", "left", "of", "the", "triangle", "person", "犬", "café")
_TIE = 1e-4
"""Difference of two logits, which are some tens, up to which last bits may decide between them in float32."""


@dataclass(frozen=True)
class Comparison:
    """What comparing answers found."""

    n_questions: int
    n_tokens: int
    n_ties: int
    """Answers that part where two logits are the same but for last bits; the rest of them isn't compared."""
    n_differ: int
    """Answers that part anywhere else: a fault in float32."""
    worst_probability: float
    """Largest difference of a probability, in answers that don't part."""


def questions_of(model: FlorenceModel, n_questions: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Image tokens and texts of several lengths."""
    draw = np.random.default_rng(seed)
    phrases = [" ".join(draw.choice(_WORDS, draw.integers(1, 6))) for _ in range(n_questions)]
    texts = [f"Locate the phrases in the caption: {phrase}" for phrase in phrases]
    generator = torch.Generator().manual_seed(seed)
    width = model.network.config.text_config.d_model
    features = torch.randn(n_questions, 577, width, generator=generator)
    return features.to(model.network.device, model.network.dtype), texts


@torch.inference_mode()
def usual(model: FlorenceModel, encoded: tuple[torch.Tensor, torch.Tensor]) -> list[GeneratedAnswer]:
    """Answer by `generate`, and by a second pass for the probabilities."""
    return list(model._generated(*encoded, model._generation(1, N_TOKENS)))


@torch.inference_mode()
def ours(model: FlorenceModel, encoded: tuple[torch.Tensor, torch.Tensor]) -> list[GeneratedAnswer]:
    """Answer by the loop."""
    lengths = [encoded[0].shape[1]] * len(encoded[0])
    return model._greedy_answers(lambda some: (encoded[0][list(some)], encoded[1][list(some)]), lengths, N_TOKENS)


@torch.inference_mode()
def compare(
    model: FlorenceModel, plain: FlorenceModel, features: torch.Tensor, texts: Sequence[str], at_once: int
) -> Comparison:
    """Compare answers of both ways, so many at once."""
    n_tokens = n_ties = n_differ = 0
    worst = 0.0
    for start in range(0, len(texts), at_once):
        encoded = model._encode(features[start : start + at_once], texts[start : start + at_once])
        answers = zip(usual(plain, encoded), ours(model, encoded), strict=True)
        for row, (theirs, own) in enumerate(answers):
            n_tokens += len(theirs.token_ids)
            if theirs.token_ids != own.token_ids:
                is_tie = _gap(model, encoded[0][row : row + 1], encoded[1][row : row + 1], theirs, own) < _TIE
                n_ties, n_differ = n_ties + is_tie, n_differ + (not is_tie)
                continue
            for name, change in (("log_probabilities", np.exp), ("location_probabilities", np.asarray)):
                one, other = (change(getattr(side.evidence, name)) for side in (theirs, own))
                worst = max(worst, float(np.abs(one - other).max()))
    return Comparison(len(texts), n_tokens, n_ties, n_differ, worst)


def _gap(
    model: FlorenceModel, encoded: torch.Tensor, mask: torch.Tensor, theirs: GeneratedAnswer, own: GeneratedAnswer
) -> float:
    """Difference of the logits of the first tokens that differ, by one pass of the network over what is alike."""
    pairs = zip(theirs.token_ids, own.token_ids, strict=False)
    place = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        return float("inf")
    before = torch.tensor([[model.rules.start_id, *theirs.token_ids[:place]]], device=encoded.device)
    states = model.network.model.language_model.decoder(
        input_ids=before, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    logits = model.network.lm_head(states[0, -1]).double()
    return abs(float(logits[theirs.token_ids[place]] - logits[own.token_ids[place]]))


def weight_bytes(model: FlorenceModel) -> int:
    """Bytes of the weights that a pass through decoder and head reads, embeddings not counted."""
    decoder = model.network.model.language_model.decoder
    read = [*decoder.layers.parameters(), *model.network.lm_head.parameters()]
    return sum(one.numel() * one.element_size() for one in read)


def measure(
    model: FlorenceModel, plain: FlorenceModel, n_rows: int, repeats: int, bytes_per_s: float
) -> dict[str, float]:
    """Time both ways in turns, from the same encoder states on; seconds are medians, the ratio that of each turn."""
    features, texts = questions_of(model, n_rows, seed=100 + n_rows)
    with torch.inference_mode():
        encoded = model._encode(features, texts)
    times: dict[str, list[float]] = {"usual": [], "ours": []}
    for turn in range(repeats + 1):
        for name, way, asked in (("usual", usual, plain), ("ours", ours, model)):
            started = time.perf_counter()
            answers = way(asked, encoded)
            # A turn that doesn't count comes first; answers are on the CPU, so a GPU has finished.
            if turn:
                times[name].append(time.perf_counter() - started)
            if any(len(one.token_ids) != N_TOKENS for one in answers):
                raise RuntimeError(f"an answer hasn't {N_TOKENS} tokens")
    ratios = [own / theirs for theirs, own in zip(*times.values(), strict=True)]
    return {
        "rows": n_rows,
        "usual_s": statistics.median(times["usual"]),
        "ours_s": statistics.median(times["ours"]),
        "ratio": statistics.median(ratios),
        "limit_s": (N_TOKENS - 1) * weight_bytes(model) / bytes_per_s,
    }


def main() -> int:
    """Compare, measure and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tokenizer", type=Path, required=True, help="folder of Florence-2's tokenizer.json")
    options.add_argument("--size", choices=SIZES, default="base")
    options.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="questions at once, that are timed")
    options.add_argument("--questions", type=int, default=N_QUESTIONS, help="whose tokens are compared")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--device", default="auto")
    options.add_argument("--dtype", type=Precision, default=Precision.FLOAT32)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(chosen.dtype, device)
    model, plain = (full_size_model(chosen.size, chosen.tokenizer) for _ in range(2))
    as_loaded(model, device, dtype)
    plain.to(device, dtype)
    many = torch.ones(64_000_000, device=device)
    bytes_per_s = many.numel() * many.element_size() / seconds_of(many.sum, device, 5)
    timed = [measure(model, plain, n_rows, chosen.repeats, bytes_per_s) for n_rows in chosen.rows]
    features, texts = questions_of(model, chosen.questions, seed=0)
    n_alone = min(4, chosen.questions - 1)
    compared = [
        compare(model, plain, features[:n_alone], texts[:n_alone], 1),
        compare(model, plain, features[n_alone:], texts[n_alone:], 8),
    ]
    print(f"{chosen.size}, {device}, {dtype}, {n_threads()} threads, {N_TOKENS} tokens, {bytes_per_s / 1e9:.1f} GB/s")
    for one in timed:
        print("  " + ", ".join(f"{name} {value:.3g}" for name, value in one.items()))
    for found in compared:
        print("  " + ", ".join(f"{name} {value:.3g}" for name, value in asdict(found).items()))
    if chosen.output:
        figures = {"timed": timed, "compared": [asdict(one) for one in compared]}
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    if dtype is torch.float32 and any(one.n_differ or one.worst_probability > 1e-5 for one in compared):
        raise SystemExit("answers differ")
    if not all(one.n_tokens and one.n_ties < one.n_questions / 2 for one in compared):
        raise SystemExit("nothing is compared")
    unless = not_full_size(chosen.size, "base")
    if (device.type, dtype) == ("cpu", torch.bfloat16):
        unless = unless or no_bfloat16()
    holds = MustHold()
    for n_rows in (1, 8):
        ratio = next((one["ratio"] for one in timed if one["rows"] == n_rows), None)
        holds.at_most(f"{n_rows} at once, share of generate's time", ratio, 0.6, unless=unless)
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
