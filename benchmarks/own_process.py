"""The command line in a process of its own, so that its peak memory is nobody else's."""

import subprocess
import sys
import time
from collections.abc import Collection

# The peak that Linux keeps for a process, in kB; `ru_maxrss` may be that of the process which started this one.
MEASURED = (
    "import sys\n"
    "from pathlib import Path\n"
    "from grounded_seg.cli import main\n"
    "try:\n"
    "    main(sys.argv[1:])\n"
    "finally:\n"
    "    peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
    "    print('peak', peak, file=sys.stderr)\n"
)


def run_command_line(*arguments: str, allowed: Collection[int] = (0,)) -> tuple[float, float]:
    """Run `grounded-seg ARGUMENTS` once; its seconds and its peak memory in MB, the libraries it imports included.

    Raises:
        subprocess.CalledProcessError: If it exits with a code that isn't allowed.
    """
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in allowed:
        print(done.stderr, file=sys.stderr)
        done.check_returncode()
    return time.perf_counter() - start, int(done.stderr.rpartition("peak ")[2]) / 1024
