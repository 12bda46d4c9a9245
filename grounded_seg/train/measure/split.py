"""Measure a base, or what was trained on it, on a split of a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from grounded_seg.detect.model.adapters import merge_adapter
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.record import check_adapter_base
from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import InputError
from grounded_seg.train.base import locate_base
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.questions import all_prompts, all_questions
from grounded_seg.train.data.records import Question
from grounded_seg.train.data.samples import ImageStore, without_long_rows
from grounded_seg.train.measure.answers import answered
from grounded_seg.train.measure.metrics import Answered, figures_of
from grounded_seg.train.settings import Method, TrainSettings


def evaluate(
    settings: TrainSettings, result: Path | None = None, *, split: Literal["train", "valid", "test"] = "test"
) -> dict[str, float]:
    """Ask a model all questions of a split and take the figures that a validation has.

    Every image with boxes is asked about every class, there or not, as `grounded-seg eval` does. What was trained sees
    images resized as in its training, the base sees them whole.

    Args:
        settings: Those of the training: data set, its split, base, device, form of the questions, further metrics.
        result: The adapter that was trained, or with full tuning the model; None for the bare base.
        split: What is asked about.

    Returns:
        `AP`, `AP50`, `present_rate`, `absent_rate` where there are boxes; `exact_match`, `edit_distance` where there
        are texts; and those of `settings.metrics`.

    Raises:
        InputError: If the data set can't be used, or the split is empty.
    """
    data = read_training_data(
        settings.dataset, settings.split, settings.seed, strict=settings.strict, max_pixels=settings.max_pixels
    )
    if not data.splits[split].examples:
        raise InputError(f"{settings.dataset} has no rows in its split {split}; name another one")
    florence = load_trained(settings, result)
    # As in the training, which couldn't take them in either.
    data = without_long_rows(data, florence, settings)
    questions = all_questions(data.splits[split].examples, all_prompts(data, settings), settings.prompt_form)
    return figures_of(_asked(florence, settings, result, questions), settings.metrics)


def ask(settings: TrainSettings, result: Path | None, questions: Sequence[Question]) -> list[Answered]:
    """Ask a model questions that it can take in."""
    return _asked(load_trained(settings, result), settings, result, questions)


def _asked(
    florence: FlorenceModel, settings: TrainSettings, result: Path | None, questions: Sequence[Question]
) -> list[Answered]:
    device = resolve_device(settings.models.device)
    dtype = resolve_dtype(settings.models.dtype, device)
    with out_of_memory_as_device_error("measuring", "Use a smaller preset or --device cpu."):
        florence.network.to(device=device, dtype=dtype)
        # The base wasn't trained on resized images, and no run would resize them for it.
        return list(
            answered(florence, questions, ImageStore(settings.image_size if result else None, settings.max_pixels))
        )


def load_trained(settings: TrainSettings, result: Path | None) -> FlorenceModel:
    """Load the bare base, or what was trained on it, in float32 on the CPU."""
    if result is not None and settings.method is Method.FULL:
        return load_florence(result)
    base = locate_base(settings)
    florence = load_florence(base.path)
    if result is not None:
        check_adapter_base(result, base)
        florence.network = merge_adapter(florence.network, result)
    return florence
