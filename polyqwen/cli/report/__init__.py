"""python -m polyqwen report: a run's or a sweep's files as one page."""
