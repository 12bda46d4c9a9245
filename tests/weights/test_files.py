"""The hash of weights is that of the files they are read from; hub ids may name a revision."""

import json
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import pytest
from paths import DEMO
from stand_in_hub import StandInHub

from grounded_seg.errors import WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.weights.files import ADAPTER_FILE, NATIVE_WEIGHT_FILES, WEIGHT_FILES, sha256_of_weights, weight_files
from grounded_seg.weights.locate import is_on_disk, locate
from grounded_seg.weights.sources import HubSource, LocalSource, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def written(folder: Path, **files: str) -> Path:
    """Make a folder of files; two underscores in a name stand for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def index(*names: str) -> str:
    return json.dumps({"weight_map": {f"tensor {place}": name for place, name in enumerate(names)}})


def found(folder: Path, names: Sequence[str] = WEIGHT_FILES) -> list[str]:
    return [file.name for file in weight_files(folder, names)]


def test_the_first_that_is_there_is_read(tmp_path: Path) -> None:
    assert found(tmp_path) == []
    written(tmp_path, adapter_model__safetensors="a", other__safetensors="o")
    assert found(tmp_path) == []
    assert found(tmp_path, (ADAPTER_FILE,)) == ["adapter_model.safetensors"]
    written(tmp_path, pytorch_model__bin="p")
    assert found(tmp_path) == ["pytorch_model.bin"]
    assert found(tmp_path, NATIVE_WEIGHT_FILES) == []
    shards = index("b.safetensors", "a.safetensors", "b.safetensors")
    written(tmp_path, model__safetensors__index__json=shards)
    assert found(tmp_path) == ["a.safetensors", "b.safetensors"]
    written(tmp_path, model__safetensors="m")
    assert found(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {"a": 1}}', index("../a.safetensors"), index("a.bin")]
)
def test_a_damaged_index_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    written(tmp_path, model__safetensors__index__json=text)
    with pytest.raises(WeightsError, match=r"index\.json can't be read as weights") as caught:
        weight_files(tmp_path, WEIGHT_FILES)
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match=r"index\.json can't be read as weights"):
        sha256_of_weights(tmp_path)


def test_another_pickle_is_another_model_whatever_lies_beside_it(tmp_path: Path) -> None:
    first = written(tmp_path / "a", pytorch_model__bin="1", notes__safetensors="x", adapter_model__safetensors="y")
    second = written(tmp_path / "b", pytorch_model__bin="2", notes__safetensors="x", adapter_model__safetensors="y")
    assert sha256_of_weights(first) != sha256_of_weights(second)


def test_an_adapter_beside_its_base_changes_neither_hash(tmp_path: Path) -> None:
    base = written(tmp_path / "base", model__safetensors="m")
    adapter = written(tmp_path / "adapter", adapter_model__safetensors="a")
    both = written(tmp_path / "both", model__safetensors="m", adapter_model__safetensors="a")
    for is_adapter, alone in ((False, base), (True, adapter)):
        hashes = {locate(LocalSource(path, "x"), is_adapter=is_adapter).sha256 for path in (alone, both)}
        assert hashes == {sha256_of_weights(alone)}
    with pytest.raises(WeightsError, match=r"No weights at .*base.* with adapter_model\.safetensors"):
        locate(LocalSource(base, "x"), is_adapter=True)


@pytest.mark.parametrize("part", ["detector", "adapter"])
def test_the_demos_adapter_still_knows_its_base(part: str) -> None:
    recorded = json.loads((DEMO / "adapter" / "grounded_seg.json").read_text(encoding="utf-8"))["base"]["sha256"]
    assert (locate(LocalSource(DEMO / part, part), is_adapter=part == "adapter").sha256 == recorded) == (
        part == "detector"
    )


class Hub:
    """Stands in for the hub's library: a folder in its cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / COMMIT

    def snapshot_download(self, repo_id: str, **_: object) -> str:
        self._folder.mkdir(exist_ok=True)
        return str(self._folder)


@pytest.mark.parametrize("beside", ["notes.safetensors", "adapter_model.safetensors"])
def test_other_weights_in_a_repository_are_no_reason_to_leave_the_model_out(
    tmp_path: Path, hub: StandInHub, beside: str
) -> None:
    hub.add("someone/older", {"config.json": b"{}", "pytorch_model.bin": b"pytorch_model.bin", beside: b"x"})
    located = locate(HubSource("someone/older", "main"))
    assert (located.path / "pytorch_model.bin").is_file()
    assert located.sha256 == sha256_of_weights(written(tmp_path / "alone", pytorch_model__bin="pytorch_model.bin"))


def test_an_adapter_comes_without_the_pickle_beside_it(hub: StandInHub) -> None:
    hub.add("someone/lora", {"adapter_config.json": b"{}", ADAPTER_FILE: b"a", "pytorch_model.bin": b"p"})
    located = locate(HubSource("someone/lora", "main"), is_adapter=True)
    assert sorted(file.name for file in located.path.iterdir()) == ["adapter_config.json", ADAPTER_FILE]
    (located.path / ADAPTER_FILE).unlink()
    with pytest.raises(WeightsError, match=r"someone/lora has no adapter_model\.safetensors in the hub's cache"):
        locate(HubSource("someone/lora", "main"), is_adapter=True, offline=True)


def test_a_snapshot_that_lacks_a_part_is_not_on_this_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(tmp_path).snapshot_download)
    written(
        tmp_path / COMMIT, a__safetensors="1", model__safetensors__index__json=index("a.safetensors", "b.safetensors")
    )
    source = HubSource("someone/large", "main")
    assert not is_on_disk(source)
    written(tmp_path / COMMIT, b__safetensors="2")
    assert is_on_disk(source)


@pytest.mark.parametrize("option", ["detector", "adapter", "segmenter"])
@pytest.mark.parametrize("revision", ["COMMIT", "v1.0", "refs/pr/3"])
def test_a_hub_id_may_name_a_revision(hub: StandInHub, option: str, revision: str) -> None:
    commit = hub.add("someone/model", {"model.safetensors": b"m", ADAPTER_FILE: b"a"}, branch=revision)
    hub.add("someone/model", {"model.safetensors": b"of main"})
    revision = commit if revision == "COMMIT" else revision
    source = getattr(resolve(ModelSettings("base-ft", **{option: f"someone/model@{revision}"})), option)
    assert source == HubSource("someone/model", revision)
    located = locate(source, is_adapter=option == "adapter")
    # What a run's manifest says.
    assert (located.name, located.revision) == ("someone/model", commit)
    if revision != commit:
        assert hub.paths()[0] == f"/api/models/someone/model/revision/{revision}"


@pytest.mark.parametrize("given", ["someone/model@", "someone/model@-x", "someone@main", "someone/model@a b"])
def test_what_is_no_revision_is_refused(given: str) -> None:
    for option in ("detector", "adapter", "segmenter"):
        with pytest.raises(WeightsError, match=r"a hub id \(owner/name or owner/name@commit\)"):
            resolve(ModelSettings("base-ft", **{option: given}))


def test_a_folder_comes_before_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "best@3").mkdir(parents=True)
    assert resolve(ModelSettings(detector="runs/best@3")).detector == LocalSource(Path("runs/best@3"), "runs/best@3")


def test_a_revision_out_of_reach_is_named(hub: StandInHub) -> None:
    hub.add("someone/model", {"model.safetensors": b"m"})
    with pytest.raises(
        WeightsError, match=r"^someone/model@v9 is neither .*https://huggingface\.co/someone/model/tree/v9"
    ):
        locate(HubSource("someone/model", "v9"))


def test_only_models_that_are_used_make_a_demo(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    own = ModelSettings("demo", detector=str(tmp_path / "own"))
    assert resolve(own).is_demo
    assert not resolve(own, boxes_only=True).is_demo
    assert resolve(ModelSettings("demo"), boxes_only=True).is_demo
