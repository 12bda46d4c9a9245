"""Settings of a server."""

from dataclasses import dataclass, field
from pathlib import Path

from grounded_seg.errors import UsageError
from grounded_seg.serve.allowed_hosts import allowed_host
from grounded_seg.setting_types import Port, PositiveInt, convert_fields, refuse
from grounded_seg.settings import DetectSettings, ModelSettings, SegmentSettings, TileSettings


@dataclass(frozen=True)
class ServeSettings:
    """One `serve`: which models answer whom, and how much at once."""

    models: ModelSettings = field(default_factory=ModelSettings)
    detect: DetectSettings = field(default_factory=DetectSettings)
    segment: SegmentSettings = field(default_factory=SegmentSettings)
    tiles: TileSettings | None = None
    boxes_only: bool = False
    host: str = "127.0.0.1"
    """Address of this machine to listen on."""
    port: Port = 8765
    """0 for a free one."""
    token: str | None = field(default=None, repr=False)
    root: Path | None = None
    """Folder below which a request may name images; None for none."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts that images may be fetched from: `name` for all of its ports, or `name:port`."""
    batch_size: PositiveInt = 8
    """Most images that go through the models together."""
    queue_size: PositiveInt = 32
    """Requests in hand at once; more are refused."""
    max_pixels: PositiveInt = 50_000_000
    """Width x height above which an image is refused before it is decoded; 150 MB as RGB."""
    max_megabytes: PositiveInt = 64
    """Of a request, and of a fetched image."""

    def __post_init__(self) -> None:
        problems = convert_fields(self, {"max_megabytes": "max-mb", "allow_hosts": "allow-host", "queue_size": "queue"})
        if self.root is not None and not self.root.is_dir():
            problems.append(f"--root {self.root} is no folder; name the one that the images are in")
        for one in self.allow_hosts:
            try:
                allowed_host(one)
            except UsageError as error:
                problems.append(str(error))
        refuse(problems)

    @property
    def max_bytes(self) -> int:
        """Of a request, and of a fetched image."""
        return self.max_megabytes * 1_000_000
