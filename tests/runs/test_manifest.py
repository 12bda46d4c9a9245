"""What `run.json` says of the images of a run."""

from pathlib import Path

from grounded_seg.runs.manifest import ImageNames


def test_the_hash_tells_lists_apart() -> None:
    before = ImageNames.of(Path("here"), ["a.png", "b.png"])
    assert before.count == 2
    assert before.sha256 == ImageNames.of(Path("there"), ("a.png", "b.png")).sha256
    for other in (["a.png", "b.png", "c.png"], ["b.png", "a.png"], ["a.pngb.png"], ["a.png"]):
        assert before.sha256 != ImageNames.of(Path("here"), other).sha256
