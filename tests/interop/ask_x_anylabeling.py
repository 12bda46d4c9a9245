"""Ask with X-AnyLabeling's own client: labels, an image turned by EXIF, an empty answer, an error, a full queue."""

import json
import sys
from pathlib import Path

import requests
from anylabeling import config
from anylabeling.services.auto_labeling.remote_server import RemoteServer
from PIL import Image, ImageOps
from PyQt6.QtGui import QImage

url, *scenes = (word for word in sys.argv[1:] if word != "--full")
messages: list[str] = []


def client(api_key=""):  # type: ignore[no-untyped-def]
    """Give a client that is connected as its dialog does it."""
    # The application's own settings, which it takes as text too.
    settings = {"server_url": url.rstrip("/"), "api_key": api_key}
    config.current_config_file = json.dumps({"remote_server_settings": settings})
    made = RemoteServer({"type": "remote_server", "name": "remote", "display_name": "Remote"}, messages.append)
    assert requests.get(url + "health", timeout=5).status_code == 200
    models = made.get_available_models()
    [(name, model)] = models.items()
    assert name == "grounded-seg"
    assert model["display_name"]
    made.set_model_id(name)
    assert made.get_batch_processing_mode() == "text_prompt"
    return made


def asked(made, path, prompt):  # type: ignore[no-untyped-def]
    """Ask about a file; gives the shapes, and what the client told its user."""
    messages.clear()
    # It asks nothing without an image at hand, and sends the bytes of the file.
    found = made.predict_shapes(QImage(path), path, text_prompt=prompt)
    return found, list(messages)


def check_shapes(found, path):  # type: ignore[no-untyped-def]
    """Whether shapes lie in the upright image, and are as the client draws them."""
    width, height = ImageOps.exif_transpose(Image.open(path)).size
    for shape in found.shapes:
        assert shape.shape_type == "polygon"
        assert shape.label in ("car", "ball", "tree")
        assert 0 <= shape.score <= 1
        assert shape.group_id is None or shape.group_id > 0
        assert len(shape.points) >= 3
        assert all(0 <= point.x() <= width and 0 <= point.y() <= height for point in shape.points)


report = []
made = client()
made.set_auto_labeling_conf(0.3)
if "--full" in sys.argv:
    found, told = asked(made, scenes[0], "car")
    assert found.shapes == []
    assert "503" in "".join(told), told
    report.append("a full queue: the client tells of status 503")
else:
    n_found = 0
    for path in scenes:
        found, told = asked(made, path, "car,ball. tree")
        assert told == [], told
        check_shapes(found, path)
        n_found += len(found.shapes)
    assert n_found, "nothing was found: that says nothing"
    report.append(f"{n_found} shapes on {len(scenes)} images, in their upright frames")
    found, told = asked(made, scenes[0], "purple unicorn")
    assert (found.shapes, told) == ([], []), (found.shapes, told)
    report.append("nothing found: no shapes, and no message")
    broken = scenes[0] + ".broken.jpg"
    Path(broken).write_bytes(b"no image")
    found, told = asked(made, broken, "car")
    assert found.shapes == []
    assert "422" in "".join(told), told
    report.append("an image that is none: the client tells of status 422")
    made.set_model_id("another")
    _, told = asked(made, scenes[0], "car")
    assert "404" in "".join(told), told
    report.append("another model: the client tells of status 404")
print(json.dumps(report))
