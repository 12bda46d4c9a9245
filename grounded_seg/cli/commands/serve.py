"""`grounded-seg serve`: the models behind a web page, an HTTP interface, and those of label tools."""

import os
from contextlib import ExitStack
from typing import Any

import click

from grounded_seg.cli.messages import note, note_if_demo, set_up_messages, show
from grounded_seg.cli.options import PATH, debug_option, model_options, option_of, settings_from, stage_options
from grounded_seg.settings import RunSettings


@click.command()
@model_options
@stage_options("Drop boxes below this score, if the request doesn't say.")
@option_of(RunSettings, "boxes_only", "Find boxes only, and make no masks.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to listen on; 0.0.0.0 lets other machines in, which needs a token.",
)
@click.option("--port", default=8765, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--token",
    envvar="GROUNDED_SEG_TOKEN",
    show_envvar=True,
    help="What every caller has to give, as Bearer, header Token, or password.",
)
@click.option("--root", type=PATH, help="Folder below which requests may name images; without it they can't.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Host that images may be fetched from; repeat the option for several.",
)
@click.option(
    "--batch-size", default=8, show_default=True, help="Maximum number of images that go through the models together."
)
@click.option(
    "--queue",
    "queue_size",
    default=32,
    show_default=True,
    help="Maximum number of requests in hand; more are refused with status 503.",
)
@click.option(
    "--max-pixels",
    default=50_000_000,
    show_default=True,
    help="Refuse images of more pixels than this, before decoding.",
)
@click.option(
    "--max-mb",
    "max_megabytes",
    default=64,
    show_default=True,
    help="Maximum size of a request, and of a fetched image, in megabytes.",
)
@debug_option
def serve(debug: bool, **options: Any) -> int:
    """Answer requests: a web page, an HTTP interface, Label Studio, X-AnyLabeling.

    The address of the page is printed when the models are loaded. Ctrl-C ends the server, once it has finished what is
    in hand. /docs on the server describes its interface; docs/serve.md how label tools are connected.

    LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY in the environment name a Label Studio that images are fetched from, if
    its host is allowed.

    Exit code: 0 ended, 2 usage, a taken port too, 4 weights missing or wrong, 5 device, 130 interrupted while loading.
    """
    set_up_messages(debug=debug)
    # These import torch and the web server, which would slow --help down.
    from grounded_seg.cli.fetching import fetched
    from grounded_seg.geometry.masks import opencv
    from grounded_seg.web.launch import require_web

    require_web("serve")
    from grounded_seg.serve.settings import ServeSettings
    from grounded_seg.serve.start import serve as serve_models

    opencv()
    settings = settings_from(ServeSettings, options)
    note_if_demo(settings.models, boxes_only=settings.boxes_only)

    with ExitStack() as shown:
        progress = shown.enter_context(fetched("weights"))

        def started(address: str) -> None:
            shown.close()
            show(address)
            login = "; the browser asks for the token: leave the user name empty" if settings.token else ""
            note(f"requests are answered at {address}{login}; Ctrl-C ends the server")

        serve_models(settings, os.environ, started=started, progress=progress)
    return 0
