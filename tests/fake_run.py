"""The command line in a process of its own, with models that need no weights and take a little time.

    python tests/fake_run.py run "red car" PHOTOS -o OUT --resume

To be killed, interrupted, or run twice at once; `SECONDS_PER_BATCH` in the environment says how slow the models are.
"""

import sys

from fakes import found_models
from worker_fakes import slow_chain

from grounded_seg.cli import main
from grounded_seg.runs import run as runs


def run() -> None:
    """Put the slow models in place of real ones, and run the command."""
    runs.find_models = found_models
    runs.load_chain = slow_chain  # type: ignore[assignment]
    main(sys.argv[1:])


if __name__ == "__main__":
    run()
