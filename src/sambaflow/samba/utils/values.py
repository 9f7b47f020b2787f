"""Readers of flag values: each takes the text and says what it expected instead of nonsense."""

import argparse

# Above any batch or layer that fits a machine, and small enough to multiply a few of.
LARGEST = 2**31 - 1


def positive(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    if value > LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too large: at most {LARGEST}")
    return value


def fraction_or_more(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value
