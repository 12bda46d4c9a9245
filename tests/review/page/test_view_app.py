"""What the server behind the page answers, and what a decision leaves on the disk."""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fakes import ColourDetector, InnerSegmenter, painted
from starlette.testclient import TestClient
from view_cases import made_run, write_run

from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import InputError, UsageError
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.review.page.ask_again import AskAgain
from grounded_seg.review.page.picture_cache import pictures_of
from grounded_seg.review.page.view_app import MAX_BODY_BYTES, Ask, view_app
from grounded_seg.review.page.viewed_run import ViewedRun
from grounded_seg.runs.journal import text_of
from grounded_seg.web.access import Access

N_SCENES = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("made"), N_SCENES, short_side=160)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """Its own copy, as decisions are written into it."""
    return shutil.copytree(made, tmp_path / "run")


def lines_of(run: Path) -> list[Any]:
    return [json.loads(text) for text in (run / "results.jsonl").read_text().splitlines()]


@contextmanager
def page(run: Path, *, ask: Ask | None = None, token: str | None = None, **about: Any) -> Iterator[TestClient]:
    """A client of the page of a run, as the browser is one."""
    with ViewedRun(run, **about) as viewed:
        pictures = pictures_of(viewed.manifest, viewed.folder.manifest)
        app = view_app(viewed, pictures, Access(token=token, max_body_bytes=MAX_BODY_BYTES), ask)
        with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
            yield client


def item(client: TestClient, image: int) -> Any:
    [found] = client.get(f"/api/items?images={image}").json()["items"]
    return found


def decide(client: TestClient, image: int, what: str, keys: list[Any], name: str | None = None) -> Any:
    answer = client.post(f"/api/images/{image}/decision", json={"what": what, "keys": keys, "class": name})
    assert answer.status_code == 200, answer.text
    return answer.json()


def states(client: TestClient, image: int) -> list[tuple[str, str]]:
    return [(one["state"], one["class"]) for one in item(client, image)["instances"]]


def test_the_page_and_its_parts_come_with_a_strict_policy(run: Path) -> None:
    with page(run) as client:
        html = client.get("/")
        assert html.headers["content-type"].startswith("text/html")
        policy = html.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "<style" not in html.text
        assert " style=" not in html.text
        assert "onclick" not in html.text
        parts = [text.split('"')[0] for text in html.text.split('src="')[1:]]
        assert len(parts) == html.text.count("<script ") == 8
        for part in [*parts, "view.css", "icon.svg"]:
            answer = client.get(f"/{part}")
            assert (answer.status_code, "http" in answer.text.replace("http://www.w3.org/2000/svg", "")) == (200, False)
        assert client.get("/../app.py").status_code == 404


def test_a_run_is_summed_up(run: Path) -> None:
    with page(run, reviewer="Ann") as client:
        about = client.get("/api/run").json()
        assert (about["n_images"], about["n_all"], about["is_running"]) == (N_SCENES, N_SCENES, False)
        assert about["n_instances"] == sum(len(line["instances"]) for line in lines_of(run))
        assert (about["reviewer"], about["has_truth"], about["can_ask"]) == ("Ann", False, False)
        found = {one["name"]: one for one in about["classes"]}
        scores = [one["score"] for line in lines_of(run) for one in line["instances"]]
        assert sum(one["undecided"] for one in found.values()) == len(scores)
        assert sum(one["stays"][50] for one in found.values()) == sum(score >= 0.5 for score in scores)


def test_filters_come_from_the_address(run: Path) -> None:
    lines = lines_of(run)
    with page(run) as client:
        assert client.get("/api/selection").json()["images"] == list(range(N_SCENES))
        kind = lines[0]["instances"][0]["attributes"]["prompt"]
        wanted = {"min_score": "0.6", "class_name": kind.removeprefix("a ")}
        expected = [
            number
            for number, line in enumerate(lines)
            if any(one["score"] >= 0.6 and one["attributes"]["prompt"] == kind for one in line["instances"])
        ]
        assert 0 < len(expected) < N_SCENES
        assert client.get("/api/selection", params=wanted).json()["images"] == expected
        for wrong in ("min_score=2", "order=best", "colour=red", "leaves_box=perhaps"):
            answer = client.get(f"/api/selection?{wrong}")
            assert answer.status_code == 400
            assert answer.json()["error"]["message"].count("\n") == 0


def test_an_item_has_all_that_is_drawn(run: Path) -> None:
    line = lines_of(run)[0]
    with page(run) as client:
        found = item(client, 0)
        assert (found["file_name"], found["width"], found["height"]) == (
            line["file_name"],
            line["width"],
            line["height"],
        )
        for mine, written in zip(found["instances"], line["instances"], strict=True):
            assert mine["segmentation"] == written["segmentation"]
            assert mine["prompt"] == written["attributes"]["prompt"]
            assert mine["class"] == mine["prompt"].removeprefix("a ")
            assert (mine["state"], mine["is_new"], mine["verdict"]) == ("undecided", False, None)
        for wrong in ("", "a", "-1", "0,", ",".join(["0"] * 121), "99"):
            assert client.get(f"/api/items?images={wrong}").status_code == 400


def test_pictures_are_made_smaller_and_missing_ones_are_said(run: Path, made: Path) -> None:
    with page(run) as client:
        for name, longest in (("thumbnail", 360), ("picture", 2560)):
            answer = client.get(f"/api/images/0/{name}")
            assert answer.headers["content-type"] == "image/jpeg"
            picture = PIL.Image.open(io.BytesIO(answer.content))
            assert max(picture.size) <= longest
        missing = lines_of(run)[1]["file_name"]
        (made.parent / "images" / missing).rename(made.parent / "images" / "away.png")
        try:
            answer = client.get("/api/images/1/thumbnail")
        finally:
            (made.parent / "images" / "away.png").rename(made.parent / "images" / missing)
        assert answer.status_code == 404
        assert missing in answer.json()["error"]["message"]
        assert client.get("/api/images/1/thumbnail").status_code == 200
        assert client.get("/api/images/77/picture").status_code == 400


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "sub/../../secret.png"])
def test_a_name_that_leaves_the_folder_of_images_is_not_read(tmp_path: Path, name: str) -> None:
    PIL.Image.fromarray(painted(40, 30)).save(tmp_path / "secret.png")
    line: Any = {"file_name": name, "status": "done", "width": 40, "height": 30, "instances": []}
    write_run(tmp_path / "run", tmp_path / "images", [line | {"reason": None, "error": None}])
    (tmp_path / "images" / "sub").mkdir(parents=True)
    with page(tmp_path / "run") as client:
        answer = client.get("/api/images/0/picture")
        assert answer.status_code == 404
        assert "leaves the folder" in answer.json()["error"]["message"]


def test_decisions_are_on_the_disk_when_they_are_answered(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    image = next(number for number, line in enumerate(lines_of(run)) if len(line["instances"]) >= 3)
    with page(run, reviewer="Ann") as client:
        answer = decide(client, image, "accept", [0])
        assert [one["state"] for one in answer["item"]["instances"][:2]] == ["accepted", "undecided"]
        assert sum(one["accepted"] for one in answer["classes"]) == 1
        decide(client, image, "reject", [1])
        decide(client, image, "relabel", [2], "lorry <b>")
        written = [json.loads(text) for text in (run / "review.jsonl").read_text().splitlines()]
        assert [(one["what"], one["instances"], one["reviewer"]) for one in written] == [
            ("accept", [0], "Ann"),
            ("reject", [1], "Ann"),
            ("relabel", [2], "Ann"),
        ]
        assert [state for state, _ in states(client, image)[:3]] == ["accepted", "rejected", "relabelled"]
        assert states(client, image)[2] == ("relabelled", "lorry <b>")
        assert client.get("/api/selection?class_name=lorry <b>").json()["images"] == [image]
        assert client.get("/api/selection?decided=relabelled").json()["images"] == [image]
        undone = client.post("/api/undo", json={}).json()
        assert (undone["undone"]["what"], undone["item"]["index"]) == ("relabel", image)
        assert states(client, image)[2][0] == "undecided"
    # Another start reads them again; the run's own files are as they were.
    with page(run) as client:
        assert [state for state, _ in states(client, image)[:3]] == ["accepted", "rejected", "undecided"]
        assert client.get("/api/selection?decided=decided").json()["images"] == [image]
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.name in before} == before


def test_a_threshold_is_a_line_and_undone_like_one(run: Path) -> None:
    with page(run) as client:
        answer = client.post("/api/threshold", json={"class": "ball", "score": 0.9}).json()
        [ball] = [one for one in answer["classes"] if one["name"] == "ball"]
        assert ball["threshold"] == 0.9
        kept = client.get("/api/selection?class_name=ball&decided=undecided").json()["images"]
        scores = [
            [one["score"] for one in line["instances"] if one["attributes"]["prompt"] == "a ball"]
            for line in lines_of(run)
        ]
        assert kept == [number for number, those in enumerate(scores) if max(those, default=0) >= 0.9]
        with Review(run) as review:
            assert review.thresholds == {"ball": 0.9}
        assert client.post("/api/undo", json={}).json()["undone"]["what"] == "threshold"
        assert {one["threshold"] for one in client.get("/api/run").json()["classes"]} == {None}
        assert client.post("/api/undo", json={}).json()["undone"] is None


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("images/0/decision", b"{"),
        ("images/0/decision", b"[]"),
        ("images/0/decision", b'{"what": "like", "keys": [0]}'),
        ("images/0/decision", b'{"what": "undo", "keys": [0]}'),
        ("images/0/decision", b'{"what": "accept", "keys": 0}'),
        ("images/0/decision", b'{"what": "accept", "keys": [true]}'),
        ("images/0/decision", b'{"what": "accept", "keys": [99]}'),
        ("images/0/decision", b'{"what": "reject", "keys": []}'),
        ("images/0/decision", b'{"what": "relabel", "keys": [0]}'),
        ("images/0/decision", b'{"what": "relabel", "keys": [0], "class": "  "}'),
        ("images/99/decision", b'{"what": "accept", "keys": [0]}'),
        ("threshold", b'{"class": "unicorn", "score": 0.5}'),
        ("threshold", b'{"class": "ball", "score": 2}'),
        ("threshold", b'{"class": "ball", "score": true}'),
        ("images/0/question", b'{"prompt": "a cat"}'),
    ],
)
def test_a_wrong_request_changes_nothing(run: Path, path: str, content: bytes) -> None:
    with page(run) as client:
        answer = client.post(f"/api/{path}", content=content)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].count("\n") == 0
        assert (run / "review.jsonl").read_bytes() == b""


def test_only_the_page_itself_may_write(run: Path) -> None:
    content = {"what": "accept", "keys": [0]}
    with page(run) as client:
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
        ):
            assert client.post("/api/images/0/decision", json=content, headers=headers).status_code == status
        large = client.post("/api/images/0/decision", content=b" " * (MAX_BODY_BYTES + 1))
        assert large.status_code == 413
        assert (run / "review.jsonl").read_bytes() == b""
    with page(run, token="5kQ0vXz2") as client:
        assert client.get("/api/run").status_code == 401
        assert client.get("/api/run", headers={"Authorization": "Bearer 5kQ0vXz2"}).status_code == 200


def test_a_run_that_goes_on_is_seen_to_grow(run: Path) -> None:
    lines = lines_of(run)
    journal = run / "results.jsonl"
    journal.write_text("".join(f"{text_of(line)}\n" for line in lines[:2]))
    with page(run) as client:
        assert client.get("/api/run").json()["n_images"] == 2
        decide(client, 1, "accept", [0])
        with journal.open("a") as file:
            file.writelines(f"{text_of(line)}\n" for line in lines[2:])
        assert client.get("/api/run").json()["n_images"] == N_SCENES
        assert client.get("/api/selection?decided=accepted").json()["images"] == [1]
        assert item(client, N_SCENES - 1)["file_name"] == lines[-1]["file_name"]


def test_an_image_without_anything_can_be_marked(tmp_path: Path) -> None:
    empty: Any = {"file_name": "a.png", "status": "done", "width": 40, "height": 30, "instances": []}
    skipped = {"file_name": "b.png", "status": "skipped", "width": None, "height": None, "instances": []}
    lines = [empty | {"reason": None, "error": None}, skipped | {"reason": "it is empty", "error": "ImageError"}]
    write_run(tmp_path / "run", tmp_path, lines)
    with page(tmp_path / "run") as client:
        assert client.get("/api/selection?decided=undecided").json()["images"] == [0]
        assert decide(client, 0, "accept", [])["item"]["is_looked_through"] is True
        assert client.get("/api/selection?decided=undecided").json()["images"] == []
        assert client.get("/api/selection?decided=decided").json()["images"] == [0]
        assert client.get("/api/selection?images=skipped").json()["images"] == [1]
        assert item(client, 1)["skipped"] == "it is empty"


def test_the_truth_says_what_is_right(run: Path, made: Path) -> None:
    truth = json.loads((made.parent / "truth.json").read_text())
    names = {one["id"]: one["name"] for one in truth["categories"]}
    with page(run, truth=made.parent / "truth.json") as client:
        assert client.get("/api/run").json()["has_truth"] is True
        n_right = n_wrong = n_missed = 0
        for image in range(N_SCENES):
            found = item(client, image)
            real = sorted(names[one["category_id"]] for one in truth["annotations"] if one["image_id"] == image + 1)
            assert sorted(one["class"] for one in found["objects"]) == real
            for one in found["instances"]:
                by = [each for each in found["objects"] if each["found_by"] == one["key"]]
                assert (one["verdict"] == "right") == (len(by) == 1)
                assert all(each["class"] == one["class"] for each in by)
                n_right, n_wrong = n_right + (one["verdict"] == "right"), n_wrong + (one["verdict"] == "wrong")
            n_missed += sum(each["found_by"] is None for each in found["objects"])
        assert min(n_right, n_wrong, n_missed) > 0
        order = client.get("/api/selection?order=worst").json()["images"]
        scores = [_f1(item(client, image)) for image in order]
        assert scores == sorted(scores)
        assert scores[0] < scores[-1]


def _f1(found: Any) -> float:
    n_right = sum(one["verdict"] == "right" for one in found["instances"])
    n_wrong = sum(one["verdict"] == "wrong" for one in found["instances"])
    n_missed = sum(one["found_by"] is None for one in found["objects"])
    total = 2 * n_right + n_wrong + n_missed
    return 2 * n_right / total if total else 1.0


def test_another_prompt_adds_what_is_new(tmp_path: Path) -> None:
    PIL.Image.fromarray(painted(40, 30, red=(2, 3, 12, 13), green=(20, 5, 30, 17))).save(tmp_path / "a.png")
    models = GroundedSegmenter(ColourDetector(), InnerSegmenter())
    line: Any = {"file_name": "a.png", "status": "done", "width": 40, "height": 30, "instances": []}
    write_run(tmp_path / "run", tmp_path, [line | {"reason": None, "error": None}], {"red": "warm"})
    with page(tmp_path / "run", ask=AskAgain(models)) as client:
        assert client.get("/api/run").json()["can_ask"] is True

        def ask(prompt: str, name: str | None = None) -> Any:
            return client.post("/api/images/0/question", json={"prompt": prompt, "class": name}).json()

        answer = ask("red")
        assert answer["n_new"] == 1
        [red] = answer["item"]["instances"]
        assert (red["is_new"], red["state"], red["class"], red["prompt"]) == (True, "undecided", "warm", "red")
        assert red["segmentation"]["size"] == [30, 40]
        # Asked twice, it is still one object.
        assert ask("red")["n_new"] == 0
        assert ask("green; red", "cold")["n_new"] == 1
        assert [one["class"] for one in item(client, 0)["instances"]] == ["warm", "cold"]
        decide(client, 0, "accept", [red["key"]])
        assert states(client, 0) == [("accepted", "warm"), ("undecided", "cold")]
        assert client.get("/api/selection?images=with").json()["images"] == [0]
        # A text that begins with @ is a prompt, and no file's name.
        assert ask(f"@{tmp_path / 'run' / 'run.json'}")["n_new"] == 0


def test_what_cannot_be_viewed_is_one_line(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match=r"is no run's folder: it has no run\.json; name what"):
        ViewedRun(tmp_path / "nowhere")
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(manifest | {"evaluation": {"ground_truth": "x"}}))
    with pytest.raises(UsageError, match="holds the predictions of an eval"):
        ViewedRun(run)
    (run / "run.json").write_text(json.dumps(manifest))
    with ViewedRun(run), pytest.raises(UsageError, match="another process is writing"):
        ViewedRun(run)
    (run / "results.jsonl").unlink()
    with pytest.raises(InputError, match=r"results\.jsonl isn't there"):
        ViewedRun(run)
