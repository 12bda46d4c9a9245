"""Seconds an image for each preset, in float32 and, where the processor computes in it, in bfloat16.

    python benchmarks/preset_speed.py --tokenizer FOLDER [--presets fast base-ft] [--repeats 3] [--output FILE]

Models have their published sizes and random weights, which no time depends on; the demo has its own. They are written
to a folder for the time being and loaded as a run loads them: the time of that stands in a column of its own. Then one
image of 1280 x 720 goes through both stages with one question and 20 boxes: the vision tower, an answer of 84 tokens
(as many as 20 boxes take), the image encoder, and 20 masks to run lengths. Random weights give confetti: behind the
decoder, whose time counts, blob-shaped logits take the place of its own. Medians after a run that doesn't count.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from full_size_florence import full_size_model
from full_size_sam import CONFIGS, BlobShaped, full_size_sam, scene
from timing import tflops

from grounded_seg.detect.detector import load_detector
from grounded_seg.detect.model.vocabulary import TOKENIZER_FILE
from grounded_seg.detect.tasks import TASKS
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype
from grounded_seg.pipeline.load import find_models
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.segment.load import load_network
from grounded_seg.segment.sam.build import save_sam
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.settings import DetectSettings, ModelSettings, Precision
from grounded_seg.weights.locate import LocatedWeights
from grounded_seg.weights.presets import preset_by_name, preset_table

SIZE = ImageSize(1280, 720)
N_BOXES = 20
N_TOKENS = 84
"""Four of each box, and those around them."""
QUESTION = TASKS["CAPTION_TO_PHRASE_GROUNDING"].question("red car")


@dataclass(frozen=True)
class Row:
    """What one preset takes in one dtype, in seconds."""

    preset: str
    dtype: str
    load: float
    detector: float
    segmenter: float

    @property
    def image(self) -> float:
        """Of an image, once the models are loaded."""
        return self.detector + self.segmenter


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Give seconds and result of one call."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def write_detector(size: str, tokenizer: Path, folder: Path) -> None:
    """Write a Florence-2 of random weights as transformers' own folder."""
    full_size_model(size, tokenizer).network.save_pretrained(folder)
    copyfile(tokenizer / TOKENIZER_FILE, folder / TOKENIZER_FILE)


def write_segmenter(name: str, folder: Path) -> None:
    """Write a segmenter of random weights: one of Segment Anything's, or SAM 2.1 Hiera-T in transformers' layout."""
    if name in CONFIGS:
        save_sam(full_size_sam(name), CONFIGS[name](), folder)
        return
    if name != "facebook/sam2.1-hiera-tiny":
        raise RuntimeError(f"{name} is none of the segmenters that can be built here")
    # Only here: it takes seconds.
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model

    torch.manual_seed(0)
    # transformers' default sizes are Hiera-T's.
    Sam2Model(Sam2Config()).save_pretrained(folder)
    Sam2ImageProcessor(size={"height": 1024, "width": 1024}).save_pretrained(folder)


def located(preset: str, tokenizer: Path, folder: Path) -> tuple[LocatedWeights, LocatedWeights | None, Path]:
    """Give a preset's detector, adapter and segmenter; those of random weights are written first if need be."""
    row = preset_by_name(preset)
    if row.ships_with_project:
        found = find_models(ModelSettings(preset=preset))
        return found.detector, found.adapter, found.segmenter.path
    size = "large" if "-large" in row.detector else "base"
    detector, segmenter = folder / size, folder / row.segmenter.replace("/", "-")
    if not detector.exists():
        write_detector(size, tokenizer, detector)
    if not segmenter.exists():
        write_segmenter(row.segmenter, segmenter)
    return LocatedWeights(detector, size, None, ""), None, segmenter


def measure(preset: str, dtype: torch.dtype, options: argparse.Namespace, folder: Path) -> Row:
    """Load a preset as a run does, and send the image through it."""
    weights, adapter, segmenter_path = located(preset, options.tokenizer, folder)
    device, (image, found) = options.device, scene(SIZE, N_BOXES)
    load_detector_s, detector = timed(
        lambda: load_detector(weights, adapter, DetectSettings(), device=device, dtype=dtype)
    )
    load_segmenter_s, network = timed(lambda: load_network(segmenter_path, device, dtype))
    model, segmenter = detector.model, SamSegmenter(BlobShaped(network, N_BOXES))

    def detect() -> int:
        [answer] = model.answer(model.encode_images([image]), [QUESTION], max_new_tokens=N_TOKENS)
        return len(answer.token_ids)

    n_tokens, n_masks = detect(), masks_of(segmenter, image, found)
    is_random = not preset_by_name(preset).ships_with_project
    if (is_random and n_tokens != N_TOKENS) or n_masks != N_BOXES:
        raise RuntimeError(f"{preset} gave {n_tokens} tokens and {n_masks} masks: nothing to compare with")
    seconds = [
        statistics.median(timed(work)[0] for _ in range(options.repeats))
        for work in (detect, partial(masks_of, segmenter, image, found))
    ]
    return Row(preset, str(dtype).removeprefix("torch."), load_detector_s + load_segmenter_s, *seconds)


def masks_of(segmenter: SamSegmenter, image: Image, found: Sequence[Detection]) -> int:
    """Segment the boxes, and count the masks."""
    [result] = segmenter.segment([image], [found])
    return len(result.instances)


def dtypes_of(options: argparse.Namespace) -> list[torch.dtype]:
    """Give float32, and what `--dtype auto` takes here where that is another."""
    fastest = resolve_dtype(Precision.AUTO, options.device)
    return [torch.float32, *([fastest] if fastest is not torch.float32 else [])]


def main() -> int:
    """Print the table."""
    # Both sizes of detector are the same, tuned or not.
    own = [name for name in preset_table().presets if name not in ("base", "large")]
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tokenizer", type=Path, required=True, help="folder with Florence-2's tokenizer.json")
    options.add_argument("--presets", nargs="+", default=own, choices=list(preset_table().presets))
    options.add_argument("--device", type=resolve_device, default="cpu")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--output", type=Path, help="JSON file for the figures")
    chosen = options.parse_args()
    rates = ", ".join(f"{tflops(chosen.device, dtype):.2f} in {dtype}" for dtype in dtypes_of(chosen))
    print(f"{chosen.device}, {n_threads()} threads; TFLOP/s of a large product: {rates.replace('torch.', '')}")
    print(f"{'preset':10}{'dtype':>10}{'load':>8}{'detector':>10}{'segmenter':>11}{'an image':>10}   in seconds")
    rows = []
    with tempfile.TemporaryDirectory(prefix="preset-speed-") as folder:
        for preset in chosen.presets:
            for dtype in dtypes_of(chosen):
                row = measure(preset, dtype, chosen, Path(folder))
                figures = f"{row.load:8.1f}{row.detector:10.2f}{row.segmenter:11.2f}{row.image:10.2f}"
                print(f"{row.preset:10}{row.dtype:>10}{figures}", flush=True)
                rows.append(asdict(row) | {"image": row.image})
    if chosen.output is not None:
        chosen.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
