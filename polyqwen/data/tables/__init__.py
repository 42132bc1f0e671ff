"""Prepared tables: examples to Arrow tables on disk, splits, labels, the dataset."""
