"""Ask as Label Studio does, and have its SDK check every region: three kinds of labels, two layouts, several tasks."""

import base64
import json
import sys
from pathlib import Path

import requests
from label_studio_sdk.label_interface import LabelInterface

url, *scenes = sys.argv[1:]
KINDS = ("RectangleLabels", "PolygonLabels", "BrushLabels")
LABELS = '<Label value="car"/><Label value="ball" alias="round thing"/><Label value="Tree" background="#0f0"/>'
TAG = '<{kind} name="label" toName="img">{labels}</{kind}>'
LAYOUTS = {
    "flat": f'<View><Image name="img" value="$image" zoom="true"/>{TAG}</View>',
    "nested": f'<View style="display:flex"><View><Header value="Find things"/>{TAG}<TextArea name="text" toName="img"/>'
    '</View><View style="width:80%"><Image name="img" value="$picture"/></View></View>',
}


def post(path, fields):  # type: ignore[no-untyped-def]
    """Send JSON as Label Studio does."""
    answer = requests.post(url + path, json=fields, timeout=100)
    answer.raise_for_status()
    return answer.json()


def tasks(key):  # type: ignore[no-untyped-def]
    """One task an image, and one whose image is none."""
    content = [*(Path(path).read_bytes() for path in scenes), b"no image"]
    images = ["data:image/jpeg;base64," + base64.b64encode(one).decode() for one in content]
    return [{"id": 10 + number, "data": {key: image}} for number, image in enumerate(images)]


report = []
health = requests.get(url + "health", timeout=1).json()
assert health["status"] == "UP"
assert health["model_class"]
for kind in KINDS:
    for layout, form in LAYOUTS.items():
        config = form.format(kind=kind, labels=LABELS)
        interface = LabelInterface(config)
        key = "image" if layout == "flat" else "picture"
        set_up = post("setup", {"project": "1.1", "schema": config, "extra_params": None})
        contexts = {
            "config's labels": None,
            "text": {"result": [{"value": {"text": ["car; ball; nothing of the kind"]}}]},
        }
        for name, context in contexts.items():
            asked = {"tasks": tasks(key), "project": "1.1", "label_config": config, "params": {"context": context}}
            results = post("predict", asked)["results"]
            assert len(results) == len(scenes) + 1, results
            assert results[-1]["result"] == []
            regions = [region for one in results for region in one["result"]]
            assert regions, "nothing was found: that says nothing"
            assert {region["type"] for region in regions} == {kind.lower()}
            assert len({region["id"] for one in results for region in one["result"]}) == len(regions)
            for one in results:
                assert one["model_version"] == set_up["model_version"]
                errors = interface.validate_prediction(one, return_errors=True)
                assert errors == [], errors
            wrong = json.loads(json.dumps(results[0]))
            wrong["result"][0]["value"][kind.lower()] = ["unheard of"]
            assert interface.validate_prediction(wrong, return_errors=True), "the check passes anything"
            report.append(f"{kind}, {layout}, {name}: {len(regions)} regions of {len(scenes)} tasks are valid")
print(json.dumps(report))
