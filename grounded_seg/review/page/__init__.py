"""The page of `view`: a run in a browser, to look through and decide on."""
