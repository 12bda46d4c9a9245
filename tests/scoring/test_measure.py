"""What holds of a whole evaluation: perfect, empty, and by stage; and its report, there and back."""

from pathlib import Path

import pytest
from coco_cases import Box, loaded, results, scored, truth
from paths import unpacked

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.predictions import Prediction
from grounded_seg.scoring.matching import image_scores
from grounded_seg.scoring.measure import score

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def test_perfect_predictions_are_perfect_everywhere() -> None:
    data_set = read_data_set(unpacked("photos/instances.json"))
    perfect = [
        Prediction(one.image_id, one.category_id, 1.0, one.bbox_xywh, one.mask)
        for one in data_set.objects
        if not one.is_crowd
    ]
    scores = score(data_set, perfect, perfect, score_threshold=0.3)
    for stage in scores.stages().values():
        values = [getattr(stage.summary, name) for name in ("AP", "AP50", "AP75", "AR100")]
        assert values == [pytest.approx(1, abs=1e-12)] * 4
    presence = scores.presence
    assert (presence.IL_FPR, presence.IL_MCC, presence.cgF1) == (0, 1, 1)
    assert [one.error for one in scores.calibration.values()] == [0, 0]
    assert scores.loss is not None
    assert (scores.loss.detector, scores.loss.segmenter) == (0, pytest.approx(0, abs=1e-12))


def test_empty_predictions_are_0_and_no_crash(tmp_path: Path) -> None:
    scores = scored(tmp_path, truth((1, 1, HERE)), [], n_resamples=5)
    for stage in scores.stages().values():
        assert [stage.summary.AP, stage.summary.AR100, stage.summary.AP_small] == [0, 0, None]
    assert set(scores.stages()) == {"boxes", "masks"}
    assert scores.intervals["boxes"]["AP"] == (0, 0)
    assert scores.missed_masks is not None
    assert scores.missed_masks.box_missed == 1


def test_loss_is_shared_between_the_stages(tmp_path: Path) -> None:
    # Two objects: the detector misses the second, and the segmenter, given its box, gets it wrong.
    document = truth((1, 1, HERE), (1, 1, FAR), classes=("car",))
    data_set, found = loaded(tmp_path, document, results((1, 1, HERE, 0.9)))
    _, given = loaded(tmp_path, document, results((1, 1, HERE, 0.9), (1, 1, (60, 60, 10, 10), 0.8)))
    scores = score(data_set, found, given, score_threshold=0.3)
    assert scores.masks is not None
    assert scores.loss is not None
    # 51 of 101 recall thresholds are up to 1/2. Given the boxes: the same object found, so all loss is the segmenter's.
    assert pytest.approx(51 / 101) == scores.masks.summary.AP
    assert (scores.loss.detector, scores.loss.segmenter) == (pytest.approx(0), pytest.approx(50 / 101))


def test_missed_masks_are_counted_by_stage(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (1, 2, FAR))
    right_box_wrong_mask = results((1, 1, (10, 10, 10, 10), 0.9))[0] | {"bbox": list(HERE)}
    missed = scored(tmp_path, document, [right_box_wrong_mask]).missed_masks
    assert missed is not None
    assert (missed.box_found, missed.box_missed) == (1, 1)


def test_images_are_scored_one_by_one(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (1, 1, FAR), (3, 1, HERE), n_images=4)
    found = results((1, 1, HERE, 0.9), (2, 1, HERE, 0.9), (3, 1, HERE, 0.1))
    counts = image_scores(scored(tmp_path, document, found).boxes.matches, 0.3)
    assert counts.n_right.tolist() == [1, 0, 0, 0]
    assert counts.n_wrong.tolist() == [0, 1, 0, 0]
    assert counts.n_missed.tolist() == [1, 0, 1, 0]
    assert counts.f1.tolist() == [pytest.approx(2 / 3), 0, 0, 1]
