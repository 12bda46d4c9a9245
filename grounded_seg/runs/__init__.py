"""The folder that a run writes: journal, manifest, resume, pictures, merge."""
