"""Models: token ids and patches in, embeddings out; they know no task."""
