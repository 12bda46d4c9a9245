"""A server from its settings to its end."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from grounded_seg.engine.collector import Collector
from grounded_seg.pipeline.load import FoundModels, find_models, load_chain
from grounded_seg.serve.app import make_app
from grounded_seg.serve.label_studio import Connection
from grounded_seg.serve.service import Service
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.web.access import Access
from grounded_seg.web.launch import bound_socket, check_exposure, run_server, url_of

if TYPE_CHECKING:
    from grounded_seg.weights.transfer import Progress

_OPEN_PATHS = frozenset({"/health"})
"""A cluster asks whether a server is up without knowing its token."""


def serve(
    settings: ServeSettings,
    environment: Mapping[str, str],
    *,
    started: Callable[[str], None],
    progress: "Progress | None" = None,
) -> None:
    """Take the port, load the models, and answer until Ctrl-C or SIGTERM.

    Args:
        settings: What is served to whom.
        environment: LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY name a Label Studio that doesn't set this server up.
        started: Called with the address of the page once requests are answered.
        progress: Called while weights are fetched.

    Raises:
        UsageError: If the port can't be had, or other machines are let in without a token.
        WeightsError, DeviceError: If the models can't be loaded.
    """
    check_exposure(settings.host, settings.token)
    # A taken port is told before minutes of loading.
    with bound_socket(settings.host, settings.port) as taken:
        found = find_models(settings.models, boxes_only=settings.boxes_only, progress=progress)
        service = loaded_service(found, settings)
        access = Access(settings.host, settings.token, _OPEN_PATHS, settings.max_bytes)
        url = environment.get("LABEL_STUDIO_URL", "")
        known = Connection(url.rstrip("/") + "/", environment.get("LABEL_STUDIO_API_KEY", "")) if url else None
        app = make_app(service, access, known)
        run_server(app, taken, started=lambda: started(url_of(taken, settings.host)))


def loaded_service(found: FoundModels, settings: ServeSettings) -> Service:
    """Load models that were found, and have them ready for requests.

    Raises:
        WeightsError, DeviceError: If they can't be loaded.
    """
    mismatch = settings.models.allow_base_mismatch
    chain = load_chain(found, settings.detect, settings.segment, settings.tiles, allow_base_mismatch=mismatch)
    parts = (found.detector, found.adapter, found.segmenter)
    version = " + ".join(part.name for part in parts if part is not None)
    return Service(Collector(chain, settings.batch_size), settings, version)
