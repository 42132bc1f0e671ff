"""A run's folder: what is written there, read once; identity, resume, weights."""
