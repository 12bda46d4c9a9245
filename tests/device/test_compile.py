"""`--compile`: the same embeddings through torch.compile, and one line where it can't be done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_sam import CPU, SIZES, SMALL, random_image, random_sam

from grounded_seg import GroundedSegmenter
from grounded_seg.device import kernels as kernels_module
from grounded_seg.device.kernels import AttentionKernel, Kernels, LinearKernel, choose_kernels
from grounded_seg.errors import DeviceError
from grounded_seg.pipeline.load import find_models
from grounded_seg.segment import load_segmenter
from grounded_seg.segment.sam import attention
from grounded_seg.segment.sam.build import save_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.settings import DetectSettings, ModelSettings, Precision, SegmentSettings


@pytest.fixture
def compile_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts another backend in the place of torch's, which takes minutes."""
    compile_module = torch.nn.Module.compile

    def choose(backend: Any) -> None:
        monkeypatch.setattr(
            torch.nn.Module, "compile", lambda module, **options: compile_module(module, backend=backend, **options)
        )

    return choose


def test_it_is_off_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: pytest.fail("compiled"))
    save_sam(random_sam(), SMALL, tmp_path)
    load_segmenter(tmp_path, CPU, torch.float32)


@torch.inference_mode()
def test_what_is_compiled_gives_the_same(compile_with: Any) -> None:
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compile_with(backend)
    compiled = SamNetwork(random_sam(), CPU, torch.float32, compiled=True)
    plain = SamNetwork(random_sam(), CPU, torch.float32)
    # One image, and two of other shapes.
    for images in ([random_image(SIZES[0])], [random_image(size) for size in SIZES[1:3]]):
        for one, other in zip(compiled.encode(images), plain.encode(images), strict=True):
            assert torch.allclose(one, other, atol=1e-5)
    # A graph for each size of a batch, in which the size is fixed, whatever the images'.
    n_graphs = len(graphs)
    assert n_graphs >= 2
    for images in ([random_image(SIZES[3])], [random_image(size) for size in SIZES[2:4]]):
        compiled.encode(images)
    assert len(graphs) == n_graphs
    sizes = [
        node.meta["example_value"].shape for graph in graphs for node in graph.graph.nodes if node.op == "placeholder"
    ]
    assert all(isinstance(side, int) for shape in sizes for side in shape)


@torch.inference_mode()
def test_whoever_compiles_has_torchs_own_operators_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever kernels are given: `run.json`, `--resume` and the workers have those of `FoundModels`."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    taken: list[str] = []
    for name in ("blocked_attention", "lengthened_attention"):
        original = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *given, name=name, of=original: (taken.append(name), of(*given))[1])
    monkeypatch.setattr(kernels_module, "_onednn", lambda *_, **__: pytest.fail("not torch's own"))
    chosen = Kernels("avx2", AttentionKernel.BLOCKED, AttentionKernel.BLOCKED, LinearKernel.ONEDNN, LinearKernel.ONEDNN)
    network = SamNetwork(random_sam(), CPU, torch.float32, kernels=chosen, compiled=True)
    network.encode([random_image(SIZES[0])])
    assert set(taken) == {"lengthened_attention"}
    models = ModelSettings("demo", device="cpu", dtype=Precision.FLOAT32)
    plain, compiled = (find_models(models, compiled=one).kernels for one in (False, True))
    assert plain == choose_kernels(CPU, torch.float32)
    assert compiled == plain.compiled()


@pytest.mark.parametrize("stage", ["detect", "segment"])
def test_a_chain_and_its_record_have_the_same_kernels(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    detect, segment = DetectSettings(compile=stage == "detect"), SegmentSettings(compile=stage == "segment")
    chain = GroundedSegmenter.from_preset("demo", device="cpu", dtype="float32", detect=detect, segment=segment)
    assert chain.loaded is not None
    assert chain.loaded.kernels == choose_kernels(CPU, torch.float32).compiled()
    assert len(compiled) == 1


@torch.inference_mode()
def test_what_cannot_be_compiled_is_one_line(compile_with: Any) -> None:
    def backend(_: Any, __: Any) -> Any:
        raise RuntimeError("no compiler\nand much more")

    compile_with(backend)
    network = SamNetwork(random_sam(), CPU, torch.float32, compiled=True)
    with pytest.raises(
        DeviceError, match=r"can't build an image encoder here \(.*no compiler.*\)\. Leave --compile"
    ) as error:
        network.encode([random_image(SIZES[0])])
    assert "\n" not in str(error.value)
