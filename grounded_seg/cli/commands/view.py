"""`grounded-seg view`: a run in the browser, to look through and decide on."""

import os
import sys
import threading
import webbrowser
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grounded_seg.cli.messages import counted, demo_note, note, set_up_messages, show
from grounded_seg.cli.options import (
    PATH,
    debug_option,
    model_options_without_default,
    settings_from,
    stage_options,
)
from grounded_seg.errors import UsageError
from grounded_seg.settings import RunSettings

if TYPE_CHECKING:
    from grounded_seg.review.page.view_app import Ask
    from grounded_seg.review.page.viewed_run import ViewedRun

PORT = 8766


@click.command()
@click.argument("run", type=PATH)
@click.option("--images", type=PATH, help="Folder of the images, if they aren't where the run found them.")
@click.option(
    "--truth", type=PATH, metavar="GT.json", help="COCO file of what is on the images: show right, wrong and missed."
)
@click.option("--reviewer", metavar="NAME", help="Who decides; stands in each line of review.jsonl.")
@click.option(
    "--merge",
    type=PATH,
    metavar="OTHER",
    help="Merge the decisions in another review.jsonl, or in a copy of RUN, into those of RUN, and end.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; other machines need --token."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--token", help="Secret that the page's address and every request must have.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@model_options_without_default
@stage_options("Drop boxes below this score, where the page asks again.")
@debug_option
def view(run: Path, debug: bool, **options: Any) -> None:
    """Look through RUN in the browser, and accept or reject what it found.

    RUN is the folder of a run, finished or not. Decisions are stored in its review.jsonl as they are made; the run's
    own files stay as they are. With --preset or --detector the page can ask again, with another prompt.

    Exit code: 0 ended, 1 decisions can't be stored, 2 usage, 3 unreadable input, 4 weights missing or wrong, 5 device.
    """
    set_up_messages(debug=debug)
    if options["merge"] is not None:
        _merge(run, options["merge"])
        return
    # These import numpy and the web server's packages, which would slow --help down.
    from grounded_seg.web.launch import bound_socket, check_exposure, require_web, run_server, url_of

    require_web("view")
    check_exposure(options["host"], options["token"])
    from grounded_seg.images.formats import only_own_limit
    from grounded_seg.review.page.picture_cache import pictures_of
    from grounded_seg.review.page.view_app import MAX_BODY_BYTES, view_app
    from grounded_seg.review.page.viewed_run import ViewedRun
    from grounded_seg.web.access import Access

    host, token = options["host"], options["token"]
    with ExitStack() as stack:
        taken = stack.enter_context(bound_socket(host, options["port"]))
        viewed = stack.enter_context(ViewedRun(run, reviewer=options["reviewer"], truth=options["truth"]))
        _tell(viewed)
        stack.enter_context(only_own_limit())
        pictures = pictures_of(viewed.manifest, viewed.folder.manifest, options["images"])
        access = Access(host=host, token=token, max_body_bytes=MAX_BODY_BYTES)
        app = view_app(viewed, pictures, access, _asked_again(viewed, options))

        def started() -> None:
            address = url_of(taken, host, token)
            show(f"{address}  (end with Ctrl-C)")
            if not options["no_browser"] and _has_screen():
                # Its start may take a while, and requests are answered meanwhile.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        run_server(app, taken, started=started)


def _has_screen() -> bool:
    """Whether a browser has somewhere to show itself: one of text would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _merge(run: Path, other: Path) -> None:
    from grounded_seg.review.decisions_merge import merge_decisions

    for line in merge_decisions(run, other).lines():
        note(line)


def _tell(viewed: "ViewedRun") -> None:
    images, instances = counted(viewed.n_images, "image"), counted(viewed.n_instances, "instance")
    note(f"{images} with {instances} indexed in {viewed.index_s:.1f} s")
    for line in viewed.notes:
        note(line)


def _asked_again(viewed: "ViewedRun", options: dict[str, Any]) -> "Ask | None":
    """Load the models if they are named on the command line."""
    context = click.get_current_context()
    names = ("preset", "detector", "adapter", "segmenter")
    named = [one for one in names if context.get_parameter_source(one) is click.core.ParameterSource.COMMANDLINE]
    if not named:
        return None
    if not {"preset", "detector"} & set(named):
        raise UsageError(f"--{named[0]} is for asking again; name a --preset or --detector too")
    # These import torch.
    from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
    from grounded_seg.review.page.ask_again import AskAgain

    boxes_only = bool(viewed.manifest.get("settings", {}).get("boxes_only"))
    settings = settings_from(RunSettings, options)
    if (text := demo_note(settings.models, boxes_only=boxes_only)) is not None:
        note(text)
    models = settings.models
    return AskAgain(
        GroundedSegmenter.from_preset(
            models.preset,
            detector=models.detector,
            adapter=models.adapter,
            segmenter=models.segmenter,
            device=models.device,
            dtype=models.dtype,
            offline=models.offline,
            allow_base_mismatch=models.allow_base_mismatch,
            calibration=models.calibration,
            detect=settings.detect,
            segment=settings.segment,
            tiles=settings.tiles,
            boxes_only=boxes_only,
        )
    )
