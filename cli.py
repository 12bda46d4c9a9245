"""Launcher for a checkout: `python cli.py run ...` is the installed `grounded-seg run ...`."""

from grounded_seg.cli import main

if __name__ == "__main__":
    main()
