"""An adapter's settings, field by field: what can't be is refused by name, and patterns are tried within a limit."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from paths import DEMO

from grounded_seg.detect.configs import adapter_fields
from grounded_seg.detect.configs.adapter_fields import (
    AdapterFields,
    first_fitting,
    read_adapter_fields,
    unknown_settings,
    values_of,
)
from grounded_seg.errors import WeightsError

PATHS = [
    f"model.language_model.{part}.layers.{n}.{name}"
    for part in ("encoder", "decoder")
    for n in (0, 1, 10)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "fc1")
]


def config(folder: Path, **changed: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "target_modules": ["q_proj"], **changed}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"r": "4"}, "r: Expected `int`, got `str`"),
        ({"r": 0}, "r: Expected `int` >= 1"),
        ({"r": True}, "r: Expected `int`, got `bool`"),
        ({"r": 10**9}, "r: Expected `int` <= 16384"),
        ({"r": 10**90}, "r: "),
        ({"lora_alpha": None}, "lora_alpha: Expected `float`, got `null`"),
        ({"lora_alpha": 1e30}, "lora_alpha: Expected `float` <= "),
        ({"alpha_pattern": -1}, "alpha_pattern: Expected `object`, got `int`"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern"),
        ({"rank_pattern": {"q_proj": 10**9}}, "rank_pattern"),
        ({"target_modules": None}, "it has no target_modules"),
        ({"target_modules": [["q_proj"]]}, "target_modules"),
        ({"target_modules": "x" * 6000}, "target_modules"),
        ({"modules_to_save": ["(a+)+"]}, "modules_to_save"),
        ({"layers_pattern": "(a+)+"}, "layers_pattern"),
        ({"layers_to_transform": [-1]}, "layers_to_transform"),
        ({"bias": "x"}, "bias: Invalid enum value 'x'"),
        ({"use_dora": "yes"}, "use_dora: Expected `bool`"),
        ({"task_type": "\0"}, r"task_type: Invalid enum value '\\x00'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights"),
        ({"init_lora_weights": "pissa_niter_999999"}, "init_lora_weights"),
        ({"megatron_config": -(10**30)}, "megatron_config is of a kind of adapter that can't be loaded"),
        ({"monteclora_config": {"size": [0, 0]}}, "monteclora_config is of a kind"),
        ({"use_qalora": True, "layer_replication": [[0, 1]]}, "layer_replication, use_qalora is of a kind"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_setting_that_can_not_be_is_refused_by_name(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    path = config(tmp_path, **changed)
    with pytest.raises(WeightsError, match=rf"adapter_config\.json can't be read \({told}") as refused:
        read_adapter_fields(path)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"r": 1, "r": 2}', '{"r": NaN}', "[" * 5000, "{" + '"a": {' * 200])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"adapter_config\.json can't be read"):
        read_adapter_fields(path)
    assert unknown_settings(path) == []


def test_the_demo_is_plain_and_all_of_it_is_known() -> None:
    path = DEMO / "adapter" / "adapter_config.json"
    found = read_adapter_fields(path)
    assert (found.r, found.lora_alpha, found.is_plain) == (16, 32.0, True)
    assert unknown_settings(path) == []
    assert found.lora_config(PATHS).target_modules == set(PATHS)


def test_a_null_is_nothing_and_what_is_unknown_is_told(tmp_path: Path) -> None:
    path = config(tmp_path, modules_to_save=None, task_type=None, of_tomorrow=3, off_tomorrow=None, false_tomorrow=0)
    assert read_adapter_fields(path) == AdapterFields(target_modules=["q_proj"])
    assert unknown_settings(path) == ["of_tomorrow"]


def test_patterns_become_the_names_that_they_stand_for(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        target_modules=r".*decoder\.layers\.\d\..*(?:q_proj|fc1)",
        exclude_modules=r".*\.1\.fc1",
        rank_pattern={r"layers\.[01]\.fc1": 2, "fc1": 3},
        alpha_pattern={"q_proj": 7},
    )
    found = read_adapter_fields(path).lora_config(PATHS)
    decoder = "model.language_model.decoder.layers"
    assert found.target_modules == {f"{decoder}.{n}.{name}" for n in (0, 1) for name in ("self_attn.q_proj", "fc1")}
    assert {f"{decoder}.1.fc1", "model.language_model.encoder.layers.1.fc1"} == found.exclude_modules
    assert found.rank_pattern[f"{decoder}.0.fc1"] == 2
    assert found.rank_pattern[f"{decoder}.10.fc1"] == 3
    # Plain names are looked up by peft itself.
    assert found.alpha_pattern == {"q_proj": 7}


def test_a_pattern_that_names_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"target_modules 'nowhere' names no module"):
        read_adapter_fields(config(tmp_path, target_modules="nowhere")).lora_config(PATHS)


@pytest.mark.parametrize("pattern", ["(", "((((a{999}){999}){999}){999})", "(a|b){9}", "a{100}", "(?R)", "(" * 3000])
def test_what_is_no_pattern_or_fills_the_memory_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="is no pattern") as refused:
        first_fitting([pattern], PATHS)
    assert len(str(refused.value)) < 500


def test_a_pattern_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_fields, "_SECONDS_FOR_PATTERNS", 0.05)
    long_path = "model." + "a" * 2000
    started = time.monotonic()
    with pytest.raises(ValueError, match="takes too long to try"):
        first_fitting([r"(?:[a-z.]*[a-z.]*)*[a-z.]*[a-z.]*[a-z.]*\d"], [long_path] * 1000)
    # Far from what the engine would take by itself.
    assert time.monotonic() - started < 60


def test_the_first_pattern_that_fits_the_end_of_a_path_counts() -> None:
    q_proj, v_proj, fc1 = PATHS[:3]
    assert values_of({"self_attn.q_proj": 1, r".*_proj": 2}, [q_proj, v_proj, fc1]) == {q_proj: 1, v_proj: 2}
    assert values_of({"proj": 1}, [q_proj]) == {}
