"""List the keys of a folder of a bucket, on a local S3 server: seconds, and bytes of memory per key.

    python benchmarks/cloud_listing.py --keys 50000

The keys are put into the server's memory without a request. Beside it stands what fsspec's own `find` takes, and the
two have to list the same. The server runs in this process too, so its share of the time is in both.
"""

import argparse
import logging
import os
import time
import tracemalloc
from collections.abc import Callable, Sequence

import fsspec
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from grounded_seg.images.find import find_images
from grounded_seg.images.given import given_from

BUCKET, ACCOUNT = "listed", "123456789012"


def filled(n_keys: int) -> list[str]:
    """Put keys into the bucket; gives their names in the folder, sorted."""
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    names = [f"{number // 1000:04}/image-{number:08}.jpg" for number in range(n_keys)]
    for name in names:
        backend.put_object(BUCKET, f"photos/{name}", b"")
    return names


def measured(listing: Callable[[], Sequence[str]]) -> tuple[list[str], float, int, int]:
    """What a listing gives, its seconds, and the bytes that stay and that it takes at most, as Python counts them."""
    started = time.perf_counter()
    names = listing()
    seconds = time.perf_counter() - started
    del names
    tracemalloc.start()
    names = listing()
    stay, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return list(names), seconds, stay, peak


def ours() -> Sequence[str]:
    """As `run` lists them."""
    return find_images([given_from(f"s3://{BUCKET}/photos")]).file_names


def fsspecs() -> Sequence[str]:
    """By fsspec alone."""
    found = fsspec.filesystem("s3", use_listings_cache=False).find(f"{BUCKET}/photos")
    return [name.removeprefix(f"{BUCKET}/photos/") for name in found]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=50_000)
    n_keys = parser.parse_args().keys
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    wanted = filled(n_keys)
    # The first request of a process loads the libraries.
    fsspec.filesystem("s3").exists(BUCKET)
    print(f"{n_keys} keys        seconds   bytes a key that stay   bytes a key at most")
    for name, listing in (("grounded-seg", ours), ("fsspec find", fsspecs)):
        names, seconds, stay, peak = measured(listing)
        if names != wanted:
            raise SystemExit(f"{name} listed {len(names)} keys, and {len(wanted)} are there")
        print(f"{name:<14} {seconds:>8.1f} {stay / n_keys:>20.0f} {peak / n_keys:>20.0f}")
    server.stop()


if __name__ == "__main__":
    main()
