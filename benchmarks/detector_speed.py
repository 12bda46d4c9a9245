"""Compare the detector with the usual chain: the same answers at the same settings, and the time as users run each.

    python benchmarks/detector_speed.py --tokenizer FOLDER --photo FILE [--size base] [--output speed.json]

The usual chain is transformers' processor, `generate` with three beams in float32 and `post_process_generation`, one
image and one question at a time. The detector is asked as `grounded-seg run` asks it. Both use one model of random
weights that never ends an answer by itself, so both write exactly 24 tokens. Times are medians after a run that doesn't
count. On a GPU, `--size large --batch 16` gives images a second. The limit is what the arithmetic of vision tower and
text encoder takes at the rate of a large matrix product in the same number format, measured in the same run.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from full_size_florence import SIZES, TFLOP, as_loaded, full_size_model
from PIL import Image as PillowImage
from timing import seconds_of, tflops
from transformers import BartTokenizer, CLIPImageProcessor, Florence2Processor

import grounded_seg.detect.detector as detector_module
from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.detect.detector import FlorenceDetector
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.vocabulary import load_tokenizer
from grounded_seg.detect.tasks import TASKS, Task
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype
from grounded_seg.images.read import read_image
from grounded_seg.records import Image
from grounded_seg.settings import DetectSettings, GroundingTask, Precision, SuppressionScope

N_TOKENS = 24
N_PROMPTS = 8
LEAST_BOXES = 10
"""Random weights answer some photographs without a box: then nothing would be compared."""
_PROPOSALS = TASKS["REGION_PROPOSAL"]
_GROUNDING = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
_PHRASES = ("a red car", "traffic lights and 犬", "a dog on the left", "the tallest tree", "two cups", "a blue door")
_QUESTIONS = ((_PROPOSALS, ""), *((_GROUNDING, phrase) for phrase in _PHRASES))
"""Asked until enough boxes are compared."""
_EVERYTHING = DetectSettings(score_threshold=0.0, nms=SuppressionScope.NONE)
_OUTLINES = replace(_EVERYTHING, task=GroundingTask.REFERRING)
"""Random weights write locations and no words: outlines, which need none, so that there is something to compare."""


class UsualChain:
    """transformers' own way from an image and a question to boxes."""

    def __init__(self, model: FlorenceModel, tokenizer: Path) -> None:
        """Take over the model's network, and make the processor that belongs to it."""
        images = CLIPImageProcessor(
            size={"height": model.pixels.height, "width": model.pixels.width},
            do_center_crop=False,
            image_mean=list(model.pixels.mean),
            image_std=list(model.pixels.deviation),
            image_seq_length=577,
        )
        words = BartTokenizer(
            tokenizer_object=load_tokenizer(tokenizer), extra_special_tokens={"image_token": "<mask>"}
        )
        self._processor = Florence2Processor(
            images, words, post_processor_config={"bboxes": {}, "phrase_grounding": {}}
        )
        self._network = model.network

    @torch.inference_mode()
    def __call__(self, image: Image, task: Task, phrase: str = "", **rules: Any) -> tuple[list[int], list[Any]]:
        """Give the tokens, and all boxes that the processor finds in them, whatever words stand between."""
        picture = PillowImage.fromarray(image.pixels)
        inputs = self._processor(text=task.token + phrase, images=picture, return_tensors="pt")
        inputs = inputs.to(self._network.device)
        rules = {"num_beams": 3, **rules}
        tokens = self._network.generate(**inputs, do_sample=False, max_new_tokens=N_TOKENS, **rules)
        text = self._processor.batch_decode(tokens, skip_special_tokens=False)[0]
        size = (image.width, image.height)
        answer = self._processor.post_process_generation(text=text, task=_PROPOSALS.token, image_size=size)
        return tokens[0, 1:].tolist(), answer[_PROPOSALS.token]["bboxes"]


def check_identity(
    model: FlorenceModel, usual: UsualChain, image: Image, least: int = LEAST_BOXES
) -> tuple[int, float]:
    """Compare answers at equal settings: how many boxes, and how far theirs, which are cut to whole pixels, are off.

    Raises:
        RuntimeError: If tokens differ, or a box by more than a pixel, or fewer than `least` were compared.
    """
    worst, n_boxes = 0.0, 0
    for task, phrase in _QUESTIONS:
        if n_boxes >= least:
            break
        theirs, said = usual(image, task, phrase, no_repeat_ngram_size=0)
        features = model.encode_images([image])
        [ours] = model.answer(features, [task.question(phrase)], beams=3, max_new_tokens=N_TOKENS)
        if list(ours.token_ids) != theirs:
            raise RuntimeError(f"the tokens differ for {task.name} {phrase!r}: {theirs} and {list(ours.token_ids)}")
        boxes = [one.box_xyxy for one in parse_answer(_PROPOSALS, theirs, image.size, tokenizer=model.vocabulary).boxes]
        # Ours have their corners in order, and none without area; theirs may lose theirs when they are cut.
        ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in said]
        ordered = [box for box in ordered if box[0] < box[2] and box[1] < box[3]]
        boxes = [box for box in boxes if int(box[0]) < int(box[2]) and int(box[1]) < int(box[3])]
        n_boxes += len(boxes)
        if len(ordered) != len(boxes):
            raise RuntimeError(f"{len(ordered)} boxes and {len(boxes)}")
        for one, other in zip(boxes, ordered, strict=True):
            worst = max(worst, *(abs(a - b) for a, b in zip(one, other, strict=True)))
    if worst > 1:
        raise RuntimeError(f"a box is {worst:.2f} pixels off")
    if n_boxes < least:
        raise RuntimeError(f"only {n_boxes} boxes are compared; give another photograph")
    return n_boxes, worst


@contextmanager
def counted_images(model: FlorenceModel) -> Any:
    """Count the images that go through the vision tower."""
    seen: list[int] = []
    hook = model.network.model.vision_tower.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    try:
        yield seen
    finally:
        hook.remove()


def measure_prompts(
    detector: FlorenceDetector, image: Image, repeats: int, limits_s: Sequence[float]
) -> dict[str, float]:
    """Ask eight things of one image at once, and one after the other.

    Args:
        detector: Writes the same number of tokens for each.
        image: What is asked about.
        repeats: Of each measurement.
        limits_s: What the arithmetic of vision tower and text encoder takes for one image and one question.

    Raises:
        RuntimeError: If what was found differs, or the vision tower ran more than once for all of them.
    """
    prompts = [f"thing number {number}" for number in range(N_PROMPTS)]

    def together() -> list[Any]:
        return list(detector.detect([image], prompts)[0])

    def apart() -> list[Any]:
        return [one for prompt in prompts for one in detector.detect([image], [prompt])[0]]

    with counted_images(detector.model) as seen:
        found = together()
    if seen != [1]:
        raise RuntimeError(f"the vision tower saw {seen} images")
    same = [(one.prompt, one.box_xyxy) for one in found] == [(one.prompt, one.box_xyxy) for one in apart()]
    # Fewer bits promise no such thing: a batch of another size may round another way.
    if detector.model.network.dtype is torch.float32 and not (found and same):
        raise RuntimeError("eight prompts at once find nothing, or something else than one after the other")
    device = detector.model.network.device
    at_once, alone = seconds_of(together, device, repeats), seconds_of(apart, device, repeats)
    vision_s, text_s = limits_s
    return {
        "together_s": at_once,
        "together_limit_s": vision_s + N_PROMPTS * text_s,
        "apart_s": alone,
        "apart_limit_s": N_PROMPTS * (vision_s + text_s),
        "times_faster": alone / at_once,
    }


def measure(size: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Take all figures of one size."""
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(chosen.dtype, device)
    model = full_size_model(size, chosen.tokenizer)
    model.network.to(device)
    usual, image = UsualChain(model, chosen.tokenizer), read_image(chosen.photo)
    n_boxes, worst = check_identity(model, usual, image)
    result: dict[str, Any] = {
        "size": size,
        "device": str(device),
        "dtype": str(dtype),
        "threads": n_threads(),
        "identical_boxes": n_boxes,
        "worst_px": worst,
        "usual_s": seconds_of(lambda: usual(image, _GROUNDING, "a red car"), device, chosen.repeats),
        "usual_limit_s": sum(TFLOP[size]) / tflops(device, torch.float32),
    }
    # As `load_detector` does: the weights take their final format, and the answer is cut at the length asked for.
    as_loaded(model, device, dtype, compiled=chosen.compile)
    detector_module.MAX_NEW_TOKENS = N_TOKENS
    detector = FlorenceDetector(model, _EVERYTHING)
    images: Sequence[Image] = [image] * chosen.batch
    ours = seconds_of(lambda: detector.detect(images, ["a red car"]), device, chosen.repeats) / chosen.batch
    rate = tflops(device, dtype)
    limits_s = [tflop / rate for tflop in TFLOP[size]]
    return {
        **result,
        "ours_s": ours,
        "times_faster": result["usual_s"] / ours,
        "images_per_s": 1 / ours,
        "matmul_tflops": rate,
        "limit_s": sum(limits_s),
        "share_of_limit": sum(limits_s) / ours,
        "prompts": measure_prompts(FlorenceDetector(model, _OUTLINES), image, chosen.repeats, limits_s),
    }


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tokenizer", type=Path, required=True, help="folder of Florence-2's tokenizer.json")
    options.add_argument("--photo", type=Path, required=True)
    options.add_argument("--size", choices=SIZES, default="base")
    options.add_argument("--batch", type=int, default=1, help="images at a time")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--device", default="auto")
    options.add_argument("--dtype", type=Precision, default=Precision.AUTO)
    options.add_argument("--compile", action="store_true", help="the detector's vision tower through torch.compile")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    result = measure(chosen.size, chosen)
    prompts = result["prompts"]
    print(f"{result['size']}, {result['device']}, {result['dtype']}, {result['threads']} threads, {N_TOKENS} tokens")
    print(
        f"  same tokens as the usual chain with 3 beams in float32; {result['identical_boxes']} boxes, "
        f"at most {result['worst_px']:.2f} px off"
    )
    print(f"  usual chain       {result['usual_s']:8.2f} s an image; limit in float32 {result['usual_limit_s']:.2f} s")
    print(
        f"  detector          {result['ours_s']:8.2f} s an image; limit {result['limit_s']:.2f} s at "
        f"{result['matmul_tflops']:.2f} TFLOP/s, of which that is {result['share_of_limit']:.0%}"
    )
    print(f"  times faster      {result['times_faster']:8.2f}")
    print(f"  images a second   {result['images_per_s']:8.2f}, {chosen.batch} at a time")
    print(
        f"  {N_PROMPTS} prompts at once {prompts['together_s']:8.2f} s, limit {prompts['together_limit_s']:.2f} s; "
        f"one by one {prompts['apart_s']:.2f} s, limit {prompts['apart_limit_s']:.2f} s: "
        f"{prompts['times_faster']:.2f} times faster, the vision tower ran once"
    )
    if chosen.output:
        chosen.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
