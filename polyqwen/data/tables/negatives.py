"""How many negatives the rows of a prepared table were given."""

import pyarrow.compute as pc
from datasets import Dataset

from polyqwen.data.tables.cache import kept_json


def given_negatives(table: Dataset) -> int:
    """Given negatives of all rows together, counted once in the table's life."""

    def count() -> int:
        return int(pc.sum(pc.list_value_length(table.data.column("negatives"))).as_py() or 0)

    return int(kept_json(table, "negatives", count))
