"""Checks of numbers that a loss is built with, worded alike for all losses."""


def positive(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is > 0 and finite."""
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number > 0")
    return float(value)


def not_negative(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is >= 0 and finite."""
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number >= 0 (0 switches it off)")
    return float(value)


def finite(name: str, value: float) -> float:
    """Returns ``value`` as a float; raises ValueError unless it is finite."""
    if not -float("inf") < value < float("inf"):
        raise ValueError(f"{name} is {value!r}: give a finite number")
    return float(value)
