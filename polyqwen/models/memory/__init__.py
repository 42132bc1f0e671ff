"""How much of a step is kept in memory and how much is computed again."""
