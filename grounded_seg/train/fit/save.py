"""Write what was trained so that `run`, and plain peft or transformers, can load it."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.adapters import CONFIG_FILE
from grounded_seg.detect.model.record import write_adapter_base
from grounded_seg.detect.model.save import save_with_processor
from grounded_seg.errors import OutputError
from grounded_seg.files import as_output_error, write_text
from grounded_seg.train.settings import Method, PromptForm, TrainSettings
from grounded_seg.weights.locate import LocatedWeights

_CARD_NAME = "README.md"


@dataclass(frozen=True)
class Origin:
    """Where a trained model comes from."""

    settings: TrainSettings
    base: LocatedWeights
    classes: tuple[str, ...]

    def facts(self, figures: Mapping[str, float]) -> dict[str, Any]:
        """Give what is recorded beside the base."""
        return {
            "prompt_form": str(self.settings.prompt_form),
            "classes": list(self.classes),
            "image_size": self.settings.image_size,
            "metrics": dict(figures),
        }


@contextmanager
def weights_as_output_error() -> Iterator[None]:
    """Turn a full disk or a forbidden folder into an `OutputError`, whichever library meets it first."""
    try:
        with as_output_error():
            yield
    except (SafetensorError, RuntimeError) as error:
        # torch's own writer has no error class of its own.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise OutputError(f"weights can't be written ({error}); make room, or name another folder with -o") from error


@weights_as_output_error()
def save_trained(
    model: PeftModel | Florence2ForConditionalGeneration, folder: Path, origin: Origin, figures: Mapping[str, float]
) -> None:
    """Write the trained weights, whole or not at all, in place of older ones.

    Args:
        model: From `lora.make_trainable`.
        folder: An adapter as peft has it, with our record of its base; of full tuning, a model as transformers has it.
        origin: Base, classes and settings.
        figures: Of the last validation.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(part)
        _name_base(part / CONFIG_FILE, origin.base)
    else:
        save_with_processor(model, origin.base.path, part)
    write_adapter_base(part, origin.base, origin.facts(figures))
    write_text(part / _CARD_NAME, _card(origin, figures))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _name_base(path: Path, base: LocatedWeights) -> None:
    """Name the base by its id instead of the folder that it happens to lie in."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def _card(origin: Origin, figures: Mapping[str, float]) -> str:
    settings, base = origin.settings, origin.base
    is_lora = settings.method is Method.LORA
    method = f"a LoRA adapter of rank {settings.rank}, alpha {settings.alpha:g}" if is_lora else "full tuning"
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    as_run = settings.prompt_form is PromptForm.CLASS and bool(origin.classes)
    asks = "one class each, as `grounded-seg run` asks" if as_run else "all classes at once, or as the data set asks"
    command = "run PROMPT PATH" if as_run else "ask TASK IMAGE"
    use = "--adapter" if is_lora else "--adapter none --detector"
    return f"""---
base_model: {base.name}
library_name: {"peft" if is_lora else "transformers"}
tags: [grounded-seg, florence-2, object-detection]
---

# {"Adapter" if is_lora else "Model"} for {base.name}

Trained by grounded-seg with {method}, on {", ".join(sorted(settings.parts))}.

- Base: {base.name}{f", revision {base.revision}" if base.revision else ""}, sha256 `{base.sha256}`
- Classes: {", ".join(origin.classes) or "none, answers are text"}
- Questions: {asks}

Use it with `grounded-seg {command} {use} FOLDER`.

| figure of the validation | value |
|---|---|
{rows}
"""
