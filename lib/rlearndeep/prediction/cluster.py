"""Rows of tiles computed by the workers of a Dask cluster, and taken back in order.

Only the middle of the stream runs elsewhere. Which tiles are computed together does not depend on where, and the
rows are joined here, so the map is the same as that of one machine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rlearndeep.errors import DeepLearningError, missing_package

_WAIT_SECONDS = 60
_AHEAD_PER_WORKER = 2


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """A client of a Dask scheduler that has at least one worker.

    Raises:
        DeepLearningError: there is no scheduler at that address, or no worker comes.
        MissingPackage: ``distributed`` is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise missing_package("dask[distributed]", "A cluster (scheduler=)", error) from error
    try:
        client = distributed.Client(address, timeout=_WAIT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise DeepLearningError(
            f"The address must be that of a Dask scheduler that runs; '{address}' does not answer "
            f"({' '.join(str(error).split())[:200]}). Start one with 'dask scheduler' and give its address."
        ) from error
    try:
        try:
            client.wait_for_workers(1, timeout=_WAIT_SECONDS)
        except TimeoutError as error:
            raise DeepLearningError(
                f"A scheduler needs workers; none came to '{address}' within {_WAIT_SECONDS} s. Start some with "
                "'grass PROJECT/MAPSET --exec dask worker ADDRESS'."
            ) from error
        yield client
    finally:
        client.close()


def in_order(client: Any, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of a function for each item, computed by workers, in the order of the items.

    A few are computed ahead. What a worker that dies was computing is computed by another.

    Raises:
        DeepLearningError: the same item ended several workers.
    """
    import distributed

    waiting: deque[Any] = deque()
    try:
        for number, item in enumerate(items):
            if len(waiting) >= _AHEAD_PER_WORKER * max(1, len(client.nthreads())):
                yield waiting.popleft().result()
            # Of the same priority, Dask would run the later ones first.
            waiting.append(client.submit(function, item, pure=False, priority=-number))
        while waiting:
            yield waiting.popleft().result()
    except distributed.scheduler.KilledWorker as error:
        raise DeepLearningError(
            f"Workers must be able to compute their rows; the same rows ended several of them ({error}). "
            "See the logs of the workers; often they need more memory or a smaller memory=."
        ) from error
    finally:
        for future in waiting:
            future.cancel()


_turn = threading.Lock()
_kept: dict[str, Any] = {}


@contextmanager
def kept(key: str, make: Callable[[], Any], close: Callable[[Any], None]) -> Iterator[Any]:
    """On a worker: what was made under a key before, or is made now; one task at a time uses it.

    What was kept under another key is closed: GRASS has one input window per process.
    """
    with _turn:
        if key not in _kept:
            for old in list(_kept):
                close(_kept.pop(old))
            _kept[key] = make()
        yield _kept[key]
