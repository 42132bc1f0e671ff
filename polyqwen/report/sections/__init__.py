"""The parts of a run's page, one file each: files of the run in, markup out."""
