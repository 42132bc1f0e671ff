"""Finding hard negatives: a corpus on disk, rules for candidates, a blocked search."""
