"""Plain values of a manifest (JSON), each of exactly the type that is expected: nothing is taken for something else."""

from __future__ import annotations

from typing import Any


def text(value: Any) -> str:
    """A text that files and maps can hold.

    Raises:
        ValueError: it is none, has a NUL in it, at which the C library would end it, or cannot be encoded as UTF-8.
    """
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(value, "a text")
    value.encode("utf-8")
    return value


def whole(value: Any) -> int:
    """A whole number.

    Raises:
        ValueError: it is none; neither ``1.0`` nor ``true`` is one.
    """
    if type(value) is not int:
        raise _wrong(value, "a whole number")
    return value


def number(value: Any) -> float:
    """A number; it may be one that is not finite, as JSON of Python has them.

    Raises:
        ValueError: it is none; ``true`` is none.
    """
    if type(value) not in (int, float):
        raise _wrong(value, "a number")
    return float(value)


def listed(value: Any) -> list[Any]:
    """A list.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, list):
        raise _wrong(value, "a list")
    return value


def mapping(value: Any) -> dict[str, Any]:
    """An object, values by their names.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise _wrong(value, "an object")
    return value


def _wrong(value: Any, expected: str) -> ValueError:
    return ValueError(f"{str(value)[:40]!r} is not {expected}")
