"""Runs side by side: leaderboard, claims, figures."""
