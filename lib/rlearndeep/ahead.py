"""Work that a thread does while the work before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_END = object()


def ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches, the next one made while one is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, _END)
        while (batch := coming.result()) is not _END:
            coming = thread.submit(next, batches, _END)
            yield batch
