"""Several LoRA adapters beside one network, of which each call uses one, or none."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.adapters import attach_adapters
from grounded_seg.detect.model.record import trained_image_size
from grounded_seg.errors import UsageError


@dataclass(frozen=True, eq=False)
class NamedAdapters:
    """A network's adapters by name; `named_adapters` makes one."""

    model: PeftModel
    """The network with the adapters beside its weights."""
    image_sides: Mapping[str, int | None]
    """Side of the square that each adapter's images were squeezed to when it was trained; None for whole images."""

    @contextmanager
    def switched_to(self, name: str | None) -> Iterator[None]:
        """Use one adapter for a while, or with None the bare base.

        Raises:
            UsageError: If no adapter has this name.
        """
        if name is None:
            with self.model.disable_adapter():
                yield
            return
        if name not in self.image_sides:
            raise UsageError(f"no adapter {name!r} is loaded, there are {', '.join(self.image_sides)}")
        self.model.set_adapter(name)
        yield


def named_adapters(network: Florence2ForConditionalGeneration, adapters: Mapping[str, Path]) -> NamedAdapters:
    """Put several LoRA adapters beside a network's weights.

    Args:
        network: Changed in place; not to be used any more if this raises.
        adapters: As for `attach_adapters`.

    Raises:
        UsageError, WeightsError: As `attach_adapters` does; WeightsError also if an adapter's record is damaged.
    """
    sides = {name: trained_image_size(folder) for name, folder in adapters.items()}
    return NamedAdapters(attach_adapters(network, adapters), sides)
