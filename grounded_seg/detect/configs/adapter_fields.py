"""What a LoRA adapter's `adapter_config.json` says, field by field; peft gets a configuration made of that.

Patterns for names of modules are tried here, within a limit of time: peft gets the names that they stand for.
"""

import re
import time
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import regex
from msgspec import Meta

from grounded_seg.errors import WeightsError
from grounded_seg.text.printable import safe_text
from grounded_seg.weights.config_records import Rate, config_in, field_names, record_of

if TYPE_CHECKING:
    from peft import LoraConfig

_Rank: TypeAlias = Annotated[int, Meta(ge=1, le=16_384)]
_Alpha: TypeAlias = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Pattern: TypeAlias = Annotated[str, Meta(max_length=5_000)]
_Names: TypeAlias = Annotated[list[Annotated[str, Meta(min_length=1, max_length=500)]], Meta(max_length=10_000)]
_PlainName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.\-]+$", max_length=500)]
"""Of which peft makes a pattern itself."""
_PlainNames: TypeAlias = Annotated[list[_PlainName], Meta(max_length=1000)]
_LayerIndex: TypeAlias = Annotated[int, Meta(ge=0, le=1000)]
_TaskType: TypeAlias = Literal[
    "SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"
]
_Init: TypeAlias = bool | Annotated[str, Meta(pattern=r"^(gaussian|eva|olora|orthogonal|pissa|pissa_niter_\d{1,2})$")]
_ALL_LINEAR = "all-linear"
_WITHOUT_EFFECT = (
    *("auto_mapping", "ensure_weight_tying", "eva_config", "inference_mode", "loftq_config", "megatron_core"),
    *("peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config"),
)
"""Settings that no number of a loaded adapter depends on, whatever they are; some of them name code."""
_OTHER_KINDS = (
    *("alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "layer_replication"),
    *("lora_ga_config", "megatron_config", "monteclora_config", "target_parameters", "trainable_token_indices"),
    *("use_bdlora", "use_qalora", "velora_config"),
)
"""Settings of kinds of adapters that aren't loaded."""
_SECONDS_FOR_PATTERNS = 1.0
"""For all names of modules together; usual patterns take a thousandth of it."""
_MANY_TIMES = re.compile(r"\{[^}]*\d{3,}|\)\s*\{\s*[\d,]")
"""Engines write such repeats out in memory, and repeats within repeats multiply."""
_PLAIN = re.compile(r"[A-Za-z0-9_.\-]+")
_AS_THEY_ARE = (
    *("r", "lora_dropout", "modules_to_save", "layers_to_transform", "layers_pattern", "bias", "fan_in_fan_out"),
    *("use_rslora", "use_dora", "lora_bias", "task_type"),
)
"""Settings that peft gets without a change."""


@dataclass(frozen=True, kw_only=True)
class AdapterFields:
    """A LoRA adapter's settings, by peft's names; the defaults are peft's."""

    r: _Rank = 8
    lora_alpha: _Alpha = 8.0
    lora_dropout: Rate = 0.0
    target_modules: _Pattern | _Names
    """A pattern for the whole path of a module, or the ends of paths."""
    exclude_modules: _Pattern | _Names | None = None
    rank_pattern: Mapping[_Pattern, _Rank] = field(default_factory=dict)
    alpha_pattern: Mapping[_Pattern, _Alpha] = field(default_factory=dict)
    modules_to_save: _PlainNames | None = None
    layers_to_transform: _LayerIndex | list[_LayerIndex] | None = None
    layers_pattern: _PlainName | _PlainNames | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    fan_in_fan_out: bool = False
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    init_lora_weights: _Init = True
    task_type: _TaskType | None = None
    base_model_name_or_path: Annotated[str, Meta(max_length=4096)] | None = None
    """For the tools that read a converted adapter."""

    @property
    def is_plain(self) -> bool:
        """Whether it is two factors a layer, added by alpha over rank, and changes nothing else of the base."""
        plain = AdapterFields(r=self.r, lora_alpha=self.lora_alpha, target_modules=self.target_modules)
        unused = {name: getattr(plain, name) for name in ("lora_dropout", "task_type", "base_model_name_or_path")}
        starts_plain = self.init_lora_weights in (True, False, "gaussian")
        is_named = not self.targets_all
        return starts_plain and is_named and replace(self, init_lora_weights=True, **unused) == plain

    @property
    def targets_all(self) -> bool:
        """Whether every linear layer but the head is tuned."""
        return self.target_modules == _ALL_LINEAR

    def targets_among(self, paths: Collection[str]) -> list[str]:
        """The paths of modules that `target_modules` names; a `ValueError` if its pattern takes too long to try."""
        if isinstance(self.target_modules, str):
            return list(first_fitting([self.target_modules], paths))
        ends = tuple(f".{name}" for name in self.target_modules)
        return [path for path in paths if f".{path}".endswith(ends)]

    def lora_config(self, paths: Collection[str]) -> "LoraConfig":
        """The configuration for peft, with names of modules among these paths where patterns were.

        Raises:
            ValueError: If a pattern takes too long to try, or names no module, or settings contradict each other.
        """
        # peft takes a second to import.
        from peft import LoraConfig

        targets, excluded = self.target_modules, self.exclude_modules
        if isinstance(targets, str) and not self.targets_all:
            targets = self.targets_among(paths)
            if not targets:
                raise ValueError(f"target_modules {safe_text(repr(self.target_modules), most=200)} names no module")
        settings: dict[str, Any] = {name: getattr(self, name) for name in _AS_THEY_ARE}
        return LoraConfig(
            **settings,
            # A whole number is stored as one.
            lora_alpha=int(self.lora_alpha) if float(self.lora_alpha).is_integer() else self.lora_alpha,
            target_modules=targets,
            exclude_modules=list(first_fitting([excluded], paths)) if isinstance(excluded, str) else excluded,
            rank_pattern=_by_name(self.rank_pattern, paths),
            alpha_pattern=_by_name(self.alpha_pattern, paths),
            # What EVA begins with is replaced by the file's tensors, as for a plain adapter.
            init_lora_weights=True if self.init_lora_weights == "eva" else self.init_lora_weights,
            inference_mode=True,
        )


def read_adapter_fields(path: Path) -> AdapterFields:
    """The settings of an `adapter_config.json`.

    Raises:
        WeightsError: If it isn't that of a LoRA adapter that can be loaded.
    """
    try:
        content = config_in(path)
        if content.get("peft_type") != "LORA":
            kind = safe_text(str(content.get("peft_type")), most=60)
            raise WeightsError(f"{path.parent} is a {kind} adapter, only LoRA can be loaded")
        if others := [name for name in _OTHER_KINDS if content.get(name)]:
            raise ValueError(f"{', '.join(others)} is of a kind of adapter that can't be loaded")
        if not content.get("target_modules"):
            raise ValueError("it has no target_modules")
        found = record_of(AdapterFields, content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise WeightsError(f"{path} can't be read ({reason}); copy it from where the adapter was trained") from error
    return found


def unknown_settings(path: Path) -> list[str]:
    """The settings of an `adapter_config.json` that are on and not known here, which are left out."""
    try:
        content = config_in(path)
    except (OSError, ValueError):
        return []
    known = field_names(AdapterFields).union(_WITHOUT_EFFECT, _OTHER_KINDS)
    return sorted(name for name, value in content.items() if value and name not in known)


def first_fitting(patterns: Sequence[str], paths: Iterable[str]) -> dict[str, str]:
    """By each path that a pattern fits from end to end, the first that does.

    Raises:
        ValueError: If one is no pattern, or all together take too long to try.
    """
    deadline_s = time.monotonic() + _SECONDS_FOR_PATTERNS
    compiled = [(one, _compiled(one)) for one in patterns]
    found = {}
    try:
        for path in paths:
            for pattern, fits in compiled:
                if fits.fullmatch(path, timeout=max(deadline_s - time.monotonic(), 0.001)):
                    found[path] = pattern
                    break
    except (TimeoutError, RecursionError, MemoryError) as error:
        raise ValueError(f"a pattern takes too long to try: {safe_text(repr(patterns[0]), most=200)}") from error
    return found


def values_of(patterns: Mapping[str, float], paths: Iterable[str]) -> dict[str, float]:
    """By each path whose end a pattern fits, the value of the first that does, as peft looks up ranks and alphas."""
    ends = {rf"(.*\.)?({pattern})": value for pattern, value in patterns.items()}
    return {path: ends[pattern] for path, pattern in first_fitting(list(ends), paths).items()}


def _by_name(patterns: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Values by patterns, or by whole paths where one of the patterns is more than a name."""
    return dict(patterns) if all(map(_PLAIN.fullmatch, patterns)) else dict(values_of(patterns, paths))


def _compiled(pattern: str) -> Any:
    try:
        if _MANY_TIMES.search(pattern):
            raise ValueError("it repeats a part too often")
        # What is a pattern for peft is one for Python's own engine, which has no limit of time.
        re.compile(pattern)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError, ValueError) as error:
        raise ValueError(f"{safe_text(repr(pattern), most=200)} is no pattern ({safe_text(str(error))})") from error
