"""The models of a run: which weights are found for it."""

from grounded_seg.pipeline.load import find_models
from grounded_seg.settings import ModelSettings
from grounded_seg.weights.locate import locate
from grounded_seg.weights.sources import resolve


def test_the_models_of_a_run_are_found_for_its_sources() -> None:
    models = ModelSettings("demo", device="cpu")
    sources = resolve(models)
    found = find_models(models)
    assert found.detector == locate(sources.detector)
    assert sources.adapter is not None
    assert found.adapter == locate(sources.adapter, is_adapter=True)
    assert found.segmenter == locate(sources.segmenter)
    assert find_models(models, sources=sources) == found
    without = find_models(ModelSettings("demo", adapter="none", device="cpu"), boxes_only=True)
    assert (without.adapter, without.segmenter) == (None, None)
