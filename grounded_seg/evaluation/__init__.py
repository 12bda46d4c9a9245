"""The pipeline run on a data set to be scored, and a page of the images that it does worst on."""
