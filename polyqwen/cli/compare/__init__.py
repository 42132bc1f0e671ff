"""python -m polyqwen compare: from runs' own files to a leaderboard."""
