"""Pieces of a region computed by the workers of a Dask cluster, and taken back in order.

Only the middle of the stream runs elsewhere. Which tiles are computed together does not depend on where, and what
they give is joined here, so the map is the same as that of one machine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from rlearndeep.errors import DeepLearningError, missing_package

_WAIT_SECONDS = 60
_LOOK_SECONDS = 5
_CLOSE_SECONDS = 10
_AHEAD_PER_WORKER = 2
_IDLE_SECONDS = 60

_START_WORKERS = "'grass PROJECT/MAPSET --exec dask worker ADDRESS'"


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
    for name in ("distributed", "distributed.client"):
        # What goes wrong is said here, in one line.
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        # A client that cannot connect does not always end; so somebody is seen to be there first.
        asyncio.run(_greet(address))
        client = distributed.Client(address, timeout=_WAIT_SECONDS, set_as_default=False)
    except Exception as error:
        raise DeepLearningError(
            f"The address must be that of a Dask scheduler that runs; '{address}' does not answer as one "
            f"({_said(error)}). Start one with 'dask scheduler' and give its address, as tcp://HOST:8786."
        ) from error
    try:
        _expect_workers(client)
        yield client
    finally:
        with suppress(OSError):
            client.close(timeout=_CLOSE_SECONDS)


async def _greet(address: str) -> None:
    """Ask who is at an address; raises what the transport raises, and ValueError for no scheduler."""
    import distributed

    security = distributed.Security().get_connection_args("client")
    async with distributed.rpc(address, timeout=_WAIT_SECONDS, connection_args=security) as server:
        identity = await asyncio.wait_for(server.identity(), _WAIT_SECONDS)
    if "workers" not in identity:
        raise ValueError(f"it is that of a {identity.get('type')}")


def in_order(client: Any, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of a function for each item, computed by workers, in the order of the items.

    A few are computed ahead. What a worker that dies was computing is computed by another.

    Raises:
        DeepLearningError: the scheduler is gone, no worker is left, or the same item ended several workers.
    """
    import distributed

    waiting: deque[Any] = deque()
    try:
        for number, item in enumerate(items):
            if len(waiting) >= _AHEAD_PER_WORKER * max(1, _workers(client)):
                yield _result(client, waiting.popleft())
            # Of the same priority, Dask would run the later ones first.
            waiting.append(client.submit(function, item, pure=False, priority=-number))
        while waiting:
            yield _result(client, waiting.popleft())
    except distributed.scheduler.KilledWorker as error:
        raise DeepLearningError(
            f"Workers must be able to compute their rows; the same rows ended several of them ({_said(error)}). "
            "See the logs of the workers; often they need more memory or a smaller memory=."
        ) from error
    except ImportError as error:
        raise DeepLearningError(
            f"Workers need GRASS and the packages of this machine; one lacks something ({_said(error)}). "
            f"Start workers with {_START_WORKERS} and the same Python environment."
        ) from error


def _result(client: Any, future: Any) -> Any:
    """What a worker computed; raises what it raised, and DeepLearningError when nobody is there to compute it."""
    patience = _LOOK_SECONDS
    while True:
        try:
            return future.result(timeout=patience)
        except (OSError, CancelledError) as error:
            if future.status == "error":
                raise
            if not isinstance(error, TimeoutError):
                raise _lost(error) from error
        if future.done():  # it is on its way here, and would begin it anew
            patience *= 2
        _expect_workers(client)


def _expect_workers(client: Any) -> None:
    """Return as soon as there is a worker; raise DeepLearningError when none comes."""
    until = time.monotonic() + _WAIT_SECONDS
    while not _workers(client):
        if time.monotonic() > until:
            raise DeepLearningError(
                f"A scheduler needs workers; it has had none for {_WAIT_SECONDS} s. Start some with {_START_WORKERS}; "
                "where rows were finished, -r continues."
            )
        time.sleep(0.2)


def _workers(client: Any) -> int:
    """How many workers there are; raises DeepLearningError without a scheduler."""
    try:
        if client.status != "running":
            raise ConnectionError(f"the client is {client.status}")
        return len(client.sync(client.scheduler.ncores, callback_timeout=_WAIT_SECONDS))
    except OSError as error:
        raise _lost(error) from error


def _lost(error: Exception) -> DeepLearningError:
    reason = getattr(error, "reason", None) or _said(error)
    return DeepLearningError(
        f"A prediction needs its scheduler to the end; the connection to it was lost ({reason}). "
        "Start the scheduler and its workers again; where rows were finished, -r continues."
    )


def _said(error: Exception) -> str:
    """An error in few words."""
    return " ".join(str(error).split())[:200] or type(error).__name__


_turn = threading.Lock()
_kept: dict[str, tuple[Any, Callable[[Any], None]]] = {}
_alarm: threading.Timer | None = None


@contextmanager
def kept(key: str, make: Callable[[], Any], close: Callable[[Any], None]) -> Iterator[Any]:
    """On a worker: what was made under a key before, or is made now; one task at a time uses it.

    What was kept under another key is closed: GRASS has one input window per process. So is what no task
    asked for during a minute: a client may end without a word.
    """
    global _alarm
    with _turn:
        if _alarm is not None:
            _alarm.cancel()
        if key not in _kept:
            _close_kept()
            _kept[key] = make(), close
        try:
            yield _kept[key][0]
        finally:
            _alarm = threading.Timer(_IDLE_SECONDS, _forget)
            _alarm.daemon = True
            _alarm.start()


def _forget() -> None:
    with _turn:
        _close_kept()


def _close_kept() -> None:
    while _kept:
        value, close = _kept.popitem()[1]
        close(value)
