"""`python -m grounded_seg.cli` is `grounded-seg`."""

from grounded_seg.cli import main

if __name__ == "__main__":
    main(prog_name="grounded-seg")
