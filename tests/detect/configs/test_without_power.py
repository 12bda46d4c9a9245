"""A folder of weights is data: whatever its configurations name, no module is imported and no file is written."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from tiny_florence import logits, make_network, save_adapter, save_tiny_florence

from grounded_seg.detect.model.adapters import attach_adapter, attach_adapters, merge_adapter
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.save import convert, merge_model
from grounded_seg.errors import GroundedSegError, WeightsError
from grounded_seg.segment.load import load_network

EVIL = """from pathlib import Path
Path(__file__).with_name("written").touch()
class tensor_parallel:
    ColumnParallelLinear = RowParallelLinear = dict
class Config: pass
"""


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """The file that `megatron.evil`, which is on the path, writes as soon as it is imported."""
    package = tmp_path / "path" / "megatron"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "evil.py").write_text(EVIL)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package.parent))
        yield package / "written"
    for name in [name for name in sys.modules if name.partition(".")[0] == "megatron"]:
        del sys.modules[name]


def changed(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


NAMED = {"megatron_config": {"hidden_size": 1}, "megatron_core": "megatron.evil"}


def test_the_probe_fires_if_peft_gets_the_configuration_as_it_is(tmp_path: Path, written: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    changed(adapter / "adapter_config.json", **NAMED)
    PeftModel(make_network(), PeftConfig.from_pretrained(str(adapter)))
    assert written.exists()


def test_an_adapter_that_names_a_module_is_refused(tmp_path: Path, written: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    changed(adapter / "adapter_config.json", **NAMED)
    for put_on in (attach_adapter, merge_adapter):
        with pytest.raises(WeightsError, match=r"adapter_config\.json can't be read \(megatron_config is of a kind"):
            put_on(make_network(), adapter)
    save_tiny_florence(tmp_path / "base")
    with pytest.raises(WeightsError, match="megatron_config"):
        merge_model(tmp_path / "base", adapter, tmp_path / "merged")
    with pytest.raises(GroundedSegError):
        convert(adapter, tmp_path / "converted")
    assert not written.exists()


@pytest.mark.parametrize(
    "named",
    [
        {"megatron_core": "megatron.evil"},
        {"auto_mapping": {"base_model_class": "Config", "parent_library": "megatron.evil"}},
        {"auto_map": {"AutoModel": "evil.Config"}},
        {"custom_modules": {"torch.nn.Linear": "megatron.evil.Config"}, "_custom_modules": "megatron.evil"},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"base_model_name_or_path": "../../megatron/evil", "revision": "megatron.evil"},
    ],
    ids=lambda named: next(iter(named)),
)
def test_what_else_an_adapter_names_is_left_out(tmp_path: Path, written: Path, named: dict[str, Any]) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    expected = logits(attach_adapter(make_network(), adapter))
    shutil.copyfile(written.with_name("evil.py"), adapter / "evil.py")
    changed(adapter / "adapter_config.json", **named)
    model = attach_adapters(make_network(), {"default": adapter})
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
    config = model.peft_config["default"]
    assert config.megatron_config is None
    assert config.megatron_core == "megatron.core"
    assert not config.runtime_config.ephemeral_gpu_offload
    assert not written.exists()
    assert not (adapter / "written").exists()


OF_A_MODEL = {
    "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Config", "AutoTokenizer": ["evil.Config", None]},
    "attn_implementation": "owner/name",
    "_attn_implementation": "owner/name",
    "quantization_config": {"quant_method": "megatron.evil"},
    "custom_pipelines": {"x": {"impl": "evil.Config"}},
    "trust_remote_code": True,
    "tokenizer_class": "evil.Config",
    "processor_class": "evil.Config",
}


def test_what_a_detector_and_its_tokenizer_name_is_left_out(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something is fetched"))
    folder = save_tiny_florence(tmp_path / "detector")
    expected = load_florence(folder)
    shutil.copyfile(written.with_name("evil.py"), folder / "evil.py")
    for name in ("config.json", "generation_config.json", "processor_config.json", "tokenizer_config.json"):
        path = folder / name
        if not path.exists():
            path.write_text("{}")
        changed(path, **OF_A_MODEL)
    parts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in ("vision_config", "text_config"):
        parts[part] |= OF_A_MODEL
    changed(folder / "config.json", **parts)
    # As from_pretrained would find it, if it looked.
    monkeypatch.syspath_prepend(str(folder))
    found = load_florence(folder)
    torch.testing.assert_close(logits(found.network), logits(expected.network), rtol=0, atol=0)
    assert found.network.config._attn_implementation == "sdpa"
    assert found.rules == expected.rules
    assert not any(hasattr(found.network.config, name) for name in ("auto_map", "quantization_config"))
    assert not written.exists()
    assert not (folder / "written").exists()


@pytest.mark.parametrize("name", ["sam", "sam_hq", "sam2"])
def test_what_a_segmenter_names_is_left_out(
    tmp_path: Path, written: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_transformers_sam import build, processor_of

    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("something is fetched"))
    folder = tmp_path / name
    build(name).save_pretrained(folder)
    processor_of(name).image_processor.save_pretrained(folder)
    shutil.copyfile(written.with_name("evil.py"), folder / "evil.py")
    for path in folder.glob("*config.json"):
        changed(path, **OF_A_MODEL, image_processor_type="evil.Config")
    monkeypatch.syspath_prepend(str(folder))
    network: Any = load_network(folder, torch.device("cpu"), torch.float32)
    config = network._model.config
    assert config._attn_implementation != "owner/name"
    assert not any(hasattr(config, one) for one in ("auto_map", "quantization_config"))
    assert not written.exists()
    assert not (folder / "written").exists()
