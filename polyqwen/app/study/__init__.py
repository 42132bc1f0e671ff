"""python train.py study=NAME: named variants × seeds, resumable, ending in a leaderboard."""
