"""The page that tells of a run, or of a sweep: one file that needs nothing else."""
