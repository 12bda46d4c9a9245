"""Both stages and a training step on the device cuda, without one: no tensor on a wrong device or of a wrong dtype."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_cuda import CUDA, fake_cuda, like_on_cuda, on_cuda
from tiny_florence import SIDE, make_image, make_network, make_tokenizer
from tiny_sam import CPU, random_image, random_sam
from tiny_transformers_sam import build, processor_of
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from grounded_seg.detect.decoding.decoder_step import DecoderRows, GreedyRules
from grounded_seg.detect.model import pixels
from grounded_seg.detect.model.florence import AnswerRules, FlorenceModel
from grounded_seg.detect.model.logits import use_float32_logits
from grounded_seg.detect.model.pixels import PixelSettings
from grounded_seg.detect.model.tower import use_kernels, use_one_layout
from grounded_seg.detect.model.vocabulary import Vocabulary
from grounded_seg.device import resample
from grounded_seg.device.kernels import AttentionKernel, Kernels, LinearKernel, choose_kernels
from grounded_seg.records import ImageSize
from grounded_seg.segment import resize, transformers_sam
from grounded_seg.segment.encode_there import encoded_masks
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.transformers_sam import FAMILIES, TransformersNetwork
from grounded_seg.train.data.encoded_images import EncodedImages
from grounded_seg.train.fit.feature_store import FeatureStore
from grounded_seg.train.fit.loss import BatchLoss
from grounded_seg.train.fit.trainable import make_trainable
from grounded_seg.train.settings import Part, TrainSettings

DTYPES = [torch.bfloat16, *(pytest.param(one, marks=pytest.mark.release) for one in (torch.float32, torch.float16))]
SIZE = ImageSize(150, 97)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From its call on there is a GPU without values; images arrive on it by name only."""
    resample._weights.cache_clear()
    with ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(fake_cuda())
            # Or autocast would be switched off.
            monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
            # Made here, as the mode is this thread's alone.
            made = {size: torch.empty(*size, 3, dtype=torch.uint8, device=CUDA) for size in ((97, 150), (80, 120))}
            for module in (pixels, resize, transformers_sam):
                monkeypatch.setattr(module, "uploaded", lambda array, _: made[array.shape[:2]])
            # These ask the driver.
            monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
            monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())

        yield enter
    resample._weights.cache_clear()


def tiny_model(dtype: torch.dtype) -> FlorenceModel:
    network, vocabulary = make_network(), Vocabulary(make_tokenizer())
    use_one_layout(network.model.vision_tower)
    if dtype is not torch.float32:
        use_float32_logits(network, vocabulary.location_ids, dtype)
    rules = AnswerRules(start_id=2, forced_first_id=0, forced_last_id=2, stop_beams_early=True, length_penalty=1.0)
    return FlorenceModel(network, vocabulary, PixelSettings(SIDE, SIDE), rules)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_the_detector_from_pixels_to_a_step_of_its_answers(dtype: torch.dtype, cuda: Callable[[], None]) -> None:
    model = tiny_model(dtype)
    cuda()
    on_cuda(model.network)
    features = model.encode_images([make_image(0), make_image(1)])
    assert (features.device, features.dtype) == (CUDA, dtype)
    if dtype is torch.float16:
        # transformers' encoder asks for each layer whether half precision was enough.
        encoded = torch.empty(2, features.shape[1] + 9, features.shape[2], dtype=dtype, device=CUDA)
        mask = torch.empty(encoded.shape[:2], dtype=torch.long, device=CUDA)
    else:
        encoded, mask = model._encode(features, ["car", "a red car"])
    assert (encoded.device, encoded.dtype, mask.device) == (CUDA, dtype, CUDA)
    rules = GreedyRules(start_id=2, end_id=2, forced_first_id=0, forced_last_id=2, max_new_tokens=40)
    rows = DecoderRows(model.network, rules, model.vocabulary.location_ids, 3, encoded.shape[1])
    rows.start(0, encoded, mask)
    rows.make_room(100)
    rows.step(2, 3)
    rows.drop(0, 1)
    assert rows.log_probabilities.dtype is torch.float32
    assert {one.device for one in (rows.tokens, rows.answers, rows.location_probabilities)} == {CUDA}


@pytest.mark.parametrize("dtype", DTYPES[:2])
@torch.inference_mode()
def test_a_tower_with_windows_in_blocks(dtype: torch.dtype, cuda: Callable[[], None]) -> None:
    model = tiny_model(dtype)
    blocked, plain = AttentionKernel.BLOCKED, LinearKernel.TORCH
    use_kernels(model.network.model.vision_tower, Kernels("any", blocked, blocked, plain, plain))
    cuda()
    on_cuda(model.network)
    features = model.encode_images([make_image(0), make_image(1)])
    assert (features.device, features.dtype) == (CUDA, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_segment_anything_from_pixels_to_where_runs_end(dtype: torch.dtype, cuda: Callable[[], None]) -> None:
    network = SamNetwork(random_sam(), CPU, dtype, kernels=choose_kernels(CUDA, dtype))
    cuda()
    on_cuda(network)
    assert network.device == CUDA
    embeddings = network.encode([random_image(SIZE), random_image(SIZE)])
    assert [(one.device, one.dtype) for one in embeddings] == [(CUDA, dtype)] * 2
    for multimask in (False, True):
        masks_of(network, embeddings[0], multimask)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("name", ["sam_hq", "sam2"])
@torch.inference_mode()
def test_so_do_the_families_of_transformers(name: str, dtype: torch.dtype, cuda: Callable[[], None]) -> None:
    processor = processor_of(name).image_processor
    network = TransformersNetwork(
        FAMILIES[name], build(name), processor, CPU, dtype, kernels=choose_kernels(CUDA, dtype)
    )
    cuda()
    on_cuda(network)
    embeddings = network.encode([random_image(SIZE), random_image(SIZE)])
    masks_of(network, embeddings[0], multimask=True)


def masks_of(network: Any, embedding: Any, multimask: bool) -> None:
    """Decode two boxes and encode their masks, up to where a GPU has to tell how many runs there are."""
    boxes = torch.empty(2, 4, device=CUDA)
    logits, ious = network.decode(embedding, boxes, multimask=multimask)
    assert [(one.device, one.dtype) for one in (logits, ious)] == [(CUDA, torch.float32)] * 2
    assert logits.shape[:2] == ious.shape == (2, 3 if multimask else 1)
    with pytest.raises(DynamicOutputShapeException, match=r"aten\.nonzero"):
        encoded_masks(logits[:, 0], network.axes(SIZE), [(1.0, 2.0, 30.0, 40.0)] * 2, SIZE)


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("parts", [frozenset(Part), frozenset({Part.LANGUAGE}), frozenset({Part.PROJECTOR})])
def test_a_training_step_up_to_its_loss(
    parts: frozenset[Part], dtype: torch.dtype, cuda: Callable[[], None], tmp_path: Path
) -> None:
    """Backward can't be here: autograd's engine starts a thread for each device, and asks the driver which there are.

    What it computes are the derivatives of these operators on these tensors; the tests of training go through it on
    the CPU.
    """
    settings = TrainSettings(dataset=Path("in"), output=Path("out"), parts=parts)
    florence = tiny_model(torch.float32)
    model = make_trainable(florence.network, settings)
    images = EncodedImages([Path("a.png"), Path("b.png")])
    cuda()
    on_cuda(model)
    prepared: Any = SimpleNamespace(
        settings=settings,
        florence=florence,
        device=CUDA,
        dtype=dtype,
        images=None,
        features=SimpleNamespace(images=KnownMarks(images)),
    )
    with FeatureStore(tmp_path, 1 << 20) as store:
        loss_of = BatchLoss(prepared, store)
        # Where the vision tower learns, no image's features are kept.
        is_kept = Part.VISION not in parts
        loss = loss_of(model, batch_of([0, 1] if is_kept else [-1, -1], [True, True]))
        assert (loss.device, loss.dtype, loss.requires_grad) == (CUDA, torch.float32, True)
        assert [number in store for number in (0, 1)] == [is_kept] * 2
        if is_kept:
            assert {one.device for one in map(store.get, (0, 1))} == {CPU}
            # One from memory, one computed anew.
            again = loss_of(model, batch_of([0, 1], [False, True]))
            assert (again.device, again.dtype) == (CUDA, torch.float32)


class KnownMarks:
    """Marks of images as plain values, since tensors have none here."""

    def __init__(self, images: EncodedImages) -> None:
        self.number = images.number
        self.marked: set[int] = set()

    def mark(self, number: int, _: Any) -> None:
        self.marked.add(number)

    def unmark(self, number: int) -> None:
        self.marked.discard(number)

    def is_kept(self, number: int, _: Any) -> bool:
        return number in self.marked and number == 0


def batch_of(numbers: list[int], is_read: list[bool]) -> dict[str, Any]:
    """A batch of three questions about two images."""
    return {
        # These stay in the CPU's memory, where they have values.
        "image_number": SimpleNamespace(tolist=lambda: numbers),
        "image_stamp": SimpleNamespace(tolist=lambda: [(1, 1)] * len(numbers)),
        "is_read": SimpleNamespace(tolist=lambda: is_read),
        "pixel_values": torch.empty(sum(is_read), 3, SIDE, SIDE, device=CUDA),
        "image_index": torch.empty(3, dtype=torch.long, device=CUDA),
        "input_ids": torch.empty(3, 5, dtype=torch.long, device=CUDA),
        "attention_mask": torch.empty(3, 5, dtype=torch.long, device=CUDA),
        "labels": torch.empty(3, 7, dtype=torch.long, device=CUDA),
        "label_places": torch.empty(12, dtype=torch.long, device=CUDA),
    }


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (lambda one: torch.zeros(one.shape, dtype=one.dtype, device="cpu"), "device"),
        (lambda one: like_on_cuda(one).float(), "scalar type"),
    ],
    ids=["device", "dtype"],
)
@torch.inference_mode()
def test_a_planted_fault_is_found(planted: Any, message: str, cuda: Callable[[], None]) -> None:
    network = SamNetwork(random_sam(), CPU, torch.bfloat16, kernels=choose_kernels(CUDA, torch.bfloat16))
    cuda()
    on_cuda(network)
    network._decoder._position = planted(network._decoder._position)
    with pytest.raises((RuntimeError, TypeError), match=message):
        masks_of(network, network.encode([random_image(SIZE)])[0], multimask=False)
