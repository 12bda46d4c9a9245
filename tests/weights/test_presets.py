"""The table of presets, and the sources that options lead to."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.weights import sources
from grounded_seg.weights.presets import preset_by_name, preset_table
from grounded_seg.weights.sources import HubSource, LocalSource, PublishedSource, resolve


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose demo folder is complete but empty."""
    module = tmp_path / "checkout" / "grounded_seg" / "weights" / "sources.py"
    monkeypatch.setattr(sources, "__file__", str(module))
    folder = tmp_path / "checkout" / "checkpoints" / "demo"
    for part in ("detector", "adapter", "segmenter"):
        (folder / part).mkdir(parents=True)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def test_the_presets_of_the_command_line() -> None:
    presets = preset_table().presets
    assert list(presets) == ["demo", "fast", "base", "base-ft", "large", "large-ft"]
    assert [name for name, preset in presets.items() if preset.ships_with_project] == ["demo"]
    for name in ("base", "base-ft", "large", "large-ft"):
        assert presets[name].detector == f"florence-community/Florence-2-{name}"
        assert presets[name].segmenter == ("vit_b" if name.startswith("base") else "vit_h")
        assert presets[name].adapter is None
        assert presets[name].revision


def test_the_preset_for_small_machines_takes_both_parts_from_the_hub() -> None:
    found = resolve(ModelSettings(preset="fast"))
    assert found.detector == resolve(ModelSettings(preset="base-ft")).detector
    assert found.segmenter == HubSource(repo_id="facebook/sam2.1-hiera-tiny", revision="main")
    assert (found.adapter, found.is_demo) == (None, False)
    own = resolve(ModelSettings(preset="fast", segmenter="vit_b"))
    assert own.segmenter == PublishedSource(preset_table().segmenters["vit_b"])


def test_the_published_segmenters() -> None:
    segmenters = preset_table().segmenters
    assert [file.file_name for file in segmenters.values()] == [
        "sam_vit_b_01ec64.pth",
        "sam_vit_l_0b3195.pth",
        "sam_vit_h_4b8939.pth",
    ]
    for file in segmenters.values():
        assert file.url.startswith("https://dl.fbaipublicfiles.com/segment_anything/")
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="Unknown preset 'huge'; there are demo, fast, base, base-ft, large, large-ft"):
        preset_by_name("huge")
    with pytest.raises(UsageError, match="Unknown preset"):
        resolve(ModelSettings(preset="huge"))


def test_a_full_size_preset() -> None:
    found = resolve(ModelSettings(preset="large-ft"))
    assert found.detector == HubSource(repo_id="florence-community/Florence-2-large-ft", revision="main")
    assert found.adapter is None
    assert found.segmenter == PublishedSource(preset_table().segmenters["vit_h"])
    assert found.is_demo is False
    assert (found.detector.name, found.segmenter.name) == (
        "florence-community/Florence-2-large-ft",
        "sam_vit_h_4b8939.pth",
    )


def test_the_demo_preset_in_a_checkout(demo: Path) -> None:
    found = resolve(ModelSettings(preset="demo"))
    assert found.detector == LocalSource(path=demo / "detector", name="demo/detector")
    assert found.adapter == LocalSource(path=demo / "adapter", name="demo/adapter")
    assert found.segmenter == LocalSource(path=demo / "segmenter", name="demo/segmenter")
    assert found.is_demo


def test_the_demo_preset_in_an_installed_package_comes_first(demo: Path) -> None:
    packaged = demo.parents[1] / "grounded_seg" / "checkpoints" / "demo" / "detector"
    packaged.mkdir(parents=True)
    assert resolve(ModelSettings(preset="demo")).detector == LocalSource(path=packaged, name="demo/detector")


def test_a_missing_part_of_the_demo_is_no_reason_to_take_another(demo: Path) -> None:
    (demo / "adapter").rmdir()
    with pytest.raises(WeightsError, match=r"demo preset's adapter is missing from .*restore checkpoints/demo"):
        resolve(ModelSettings(preset="demo"))


def test_adapter_none_switches_the_presets_off(demo: Path) -> None:
    found = resolve(ModelSettings(preset="demo", adapter="none"))
    assert found.adapter is None
    assert found.is_demo


def test_an_adapter_replaces_the_presets(demo: Path, own: Path) -> None:
    assert resolve(ModelSettings(preset="demo", adapter=str(own))).adapter == LocalSource(path=own, name=str(own))
    hub = resolve(ModelSettings(preset="base-ft", adapter="someone/cars-lora")).adapter
    assert hub == HubSource(repo_id="someone/cars-lora", revision="main")


def test_another_detector_comes_without_the_presets_adapter(demo: Path, own: Path) -> None:
    found = resolve(ModelSettings(preset="demo", detector=str(own)))
    assert found.detector == LocalSource(path=own, name=str(own))
    assert found.adapter is None
    # Its segmenter is still the small one.
    assert found.is_demo
    both = resolve(ModelSettings(preset="demo", detector=str(own), adapter=str(own)))
    assert both.adapter == LocalSource(path=own, name=str(own))


def test_nothing_of_the_demo_left_is_no_demo(demo: Path, own: Path) -> None:
    assert not resolve(ModelSettings(preset="demo", detector=str(own), segmenter="vit_b")).is_demo


def test_the_presets_own_detector_by_name_keeps_its_adapter(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.parent)
    found = resolve(ModelSettings(preset="demo", detector="demo/detector"))
    assert found == resolve(ModelSettings(preset="demo"))
    named = resolve(ModelSettings(preset="base", detector="florence-community/Florence-2-base"))
    assert named == resolve(ModelSettings(preset="base"))


def test_a_folder_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(ModelSettings(detector="runs/best")).detector == HubSource(repo_id="runs/best", revision="main")
    (tmp_path / "runs" / "best").mkdir(parents=True)
    assert resolve(ModelSettings(detector="runs/best")).detector == LocalSource(Path("runs/best"), name="runs/best")


@pytest.mark.parametrize("option", ["detector", "adapter"])
@pytest.mark.parametrize("given", ["missing", "/missing/folder", "./missing", "a/b/c", "../x", ""])
def test_a_missing_folder_is_named(option: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=rf"--{option} {re.escape(given)} isn't a folder"):
        resolve(ModelSettings(**{option: given}))


def test_a_file_is_no_detector(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match="isn't a folder"):
        resolve(ModelSettings(detector=str(tmp_path / "model.safetensors")))


def test_a_segmenter_by_file_folder_or_name(own: Path, tmp_path: Path) -> None:
    file = tmp_path / "sam.pth"
    file.touch()
    for path in (file, own):
        assert resolve(ModelSettings(segmenter=str(path))).segmenter == LocalSource(path=path, name=str(path))
    assert resolve(ModelSettings(segmenter="vit_l")).segmenter == PublishedSource(preset_table().segmenters["vit_l"])


def test_a_segmenter_by_hub_id() -> None:
    hub = resolve(ModelSettings(segmenter="facebook/sam2.1-hiera-tiny")).segmenter
    assert hub == HubSource(repo_id="facebook/sam2.1-hiera-tiny", revision="main")


@pytest.mark.parametrize("file", ["weights/sam.pth", "weights/sam.safetensors"])
def test_a_missing_weight_file_is_no_hub_id(file: str) -> None:
    with pytest.raises(WeightsError, match=r"isn't there: give a Segment Anything file"):
        resolve(ModelSettings(segmenter=file))


def test_a_missing_segmenter_lists_the_names() -> None:
    with pytest.raises(WeightsError, match=r"--segmenter nowhere\.pth isn't there: .* one of vit_b, vit_l, vit_h"):
        resolve(ModelSettings(segmenter="nowhere.pth"))
    with pytest.raises(WeightsError, match="--segmenter  isn't there"):
        resolve(ModelSettings(segmenter=""))


def test_a_forbidden_path_and_an_unknown_user_are_weights_errors(
    demo: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.stat

    def guarded(path: Any, **options: Any) -> os.stat_result:
        if Path(path).is_relative_to(own):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", guarded)
    for given in (str(own / "model"), "~nobody-of-that-name/model"):
        for option in ("detector", "adapter", "segmenter"):
            with pytest.raises(WeightsError, match=f"--{option} {given} isn't"):
                resolve(ModelSettings("demo", **{option: given}))
