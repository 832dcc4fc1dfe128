"""Numbers that users type: GRASS's parser takes ``4.5`` for a whole number, and ``3x`` for three."""

from __future__ import annotations

from typing import TypeVar

from rlearndeep.errors import DeepLearningError

N = TypeVar("N", int, float)


def read_number(option: str, text: str, kind: type[N]) -> N:
    """The number that an option names.

    Raises:
        DeepLearningError: the text is no number, or none of that kind.
    """
    try:
        return kind(text)
    except ValueError as error:
        expected = "whole number" if kind is int else "number"
        raise DeepLearningError(f"The option {option}= needs a {expected}; got '{text}'. Give a number.") from error
