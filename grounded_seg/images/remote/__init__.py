"""Images in storage elsewhere: addresses, connections through fsspec, listings."""
