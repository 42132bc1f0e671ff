"""LossRAG: candidate losses are retrieved by context, chosen and weighted by a learned policy."""
