"""Write what was trained so that `run`, and plain peft or transformers, can load it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from peft import PeftModel
from safetensors import SafetensorError
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.adapters import CONFIG_FILE
from grounded_seg.detect.model.record import write_adapter_base
from grounded_seg.detect.model.save import save_with_processor
from grounded_seg.errors import OutputError
from grounded_seg.files import as_output_error, whole_folder, write_text
from grounded_seg.train.fit.preparation import PreparedTraining
from grounded_seg.train.settings import Method, PromptForm


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
    model: PeftModel | Florence2ForConditionalGeneration, prepared: PreparedTraining, figures: Mapping[str, float]
) -> None:
    """Write the trained weights, whole or not at all, in place of older ones.

    An adapter is as peft has it, with our record of its base; of full tuning, the model is as transformers has it.
    `figures` are those of the last validation.
    """
    settings, base = prepared.settings, prepared.base
    with whole_folder(prepared.folder.result(settings.method), replace=True) as folder:
        if isinstance(model, PeftModel):
            model.save_pretrained(folder)
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            # By its id instead of the folder that it happens to lie in.
            config |= {"base_model_name_or_path": base.name, "revision": base.revision}
            write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
        else:
            save_with_processor(model, base.path, folder)
        facts = {
            "prompt_form": str(settings.prompt_form),
            "classes": list(prepared.data.classes),
            "image_size": settings.image_size,
            "metrics": dict(figures),
        }
        write_adapter_base(folder, base, facts)
        write_text(folder / "README.md", _card(prepared, figures))


def _card(prepared: PreparedTraining, figures: Mapping[str, float]) -> str:
    settings, base, classes = prepared.settings, prepared.base, prepared.data.classes
    is_lora = settings.method is Method.LORA
    method = f"a LoRA adapter of rank {settings.rank}, alpha {settings.alpha:g}" if is_lora else "full tuning"
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in figures.items())
    as_run = settings.prompt_form is PromptForm.CLASS and bool(classes)
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
- Classes: {", ".join(classes) or "none, answers are text"}
- Questions: {asks}

Use it with `grounded-seg {command} {use} FOLDER`.

| figure of the validation | value |
|---|---|
{rows}
"""
