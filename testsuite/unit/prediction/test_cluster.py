"""Work sent to two worker processes comes back in order, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.cluster import cluster, in_order, kept

distributed = pytest.importorskip("distributed")


@pytest.fixture
def two_workers():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tcp"}
    with distributed.LocalCluster(**options) as local:
        yield local


def test_results_come_in_order_and_a_killed_worker_costs_only_its_items(two_workers):
    def square(number: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(0.05)
        return number * number, os.getpid()

    with cluster(two_workers.scheduler_address) as client:
        results = []
        for number, result in enumerate(in_order(client, square, range(40))):
            results.append(result)
            if number == 8:
                os.kill(result[1], signal.SIGKILL)
        assert [value for value, _ in results] == [number * number for number in range(40)]
        assert len({worker for _, worker in results}) >= 2


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tls://127.0.0.1:1", "ucx://127.0.0.1:1", "inproc://", "nonsense", "http://a.b:80"]
)
def test_an_address_without_a_scheduler_is_refused(address, monkeypatch):
    monkeypatch.setattr("rlearndeep.prediction.cluster._WAIT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(DeepLearningError, match=f"'{address}' does not answer as one"), cluster(address):
        pass
    assert time.monotonic() - started < 20


def test_what_answers_but_is_no_scheduler_is_refused(monkeypatch, two_workers):
    monkeypatch.setattr("rlearndeep.prediction.cluster._WAIT_SECONDS", 5)
    worker = next(iter(two_workers.scheduler_info["workers"]))
    with pytest.raises(DeepLearningError, match="it is that of a Worker"), cluster(worker):
        pass


def test_a_cluster_without_workers_is_waited_for_and_left(monkeypatch, two_workers):
    monkeypatch.setattr("rlearndeep.prediction.cluster._WAIT_SECONDS", 2)
    with cluster(two_workers.scheduler_address) as client:
        results = in_order(client, abs, range(-99, 0))
        assert next(results) == 99
        two_workers.scale(0)
        with pytest.raises(DeepLearningError, match="has had none for 2 s"):
            list(results)


def test_what_a_worker_raises_is_raised_here(two_workers):
    def fails(name: str) -> None:
        raise {"late": TimeoutError, "lost": OSError, "bad": DeepLearningError}[name](name)

    with cluster(two_workers.scheduler_address) as client:
        for name, kind in (("late", TimeoutError), ("lost", OSError), ("bad", DeepLearningError)):
            with pytest.raises(kind, match=f"^{name}$"):
                list(in_order(client, fails, [name]))


def test_a_worker_that_lacks_a_package_is_named(two_workers):
    def imports(_: int) -> None:
        import no_such_package_at_all  # noqa: F401

    with (
        cluster(two_workers.scheduler_address) as client,
        pytest.raises(DeepLearningError, match=r"one lacks something .*no_such_package_at_all"),
    ):
        list(in_order(client, imports, [1]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_gone_is_said_in_one_line_and_left(number, monkeypatch, tmp_path, capfd):
    file = tmp_path / "scheduler.json"
    known = ["--scheduler-file", str(file)]
    scheduler, worker = (
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{name}", *known, "--no-dashboard", *more],
            stderr=subprocess.DEVNULL,
        )
        for name, more in (
            ("scheduler", ["--host", "tcp://127.0.0.1:0"]),
            ("worker", ["--no-nanny", "--local-directory", str(tmp_path)]),
        )
    )
    try:
        lost = pytest.raises(DeepLearningError, match="the connection to it was lost")
        with lost, cluster(address_in(file)) as client:
            monkeypatch.setattr("rlearndeep.prediction.cluster._WAIT_SECONDS", 2)
            for done, _ in enumerate(in_order(client, time.sleep, [0.05] * 1000)):
                if done == 5:
                    scheduler.send_signal(number)
                    gone = time.monotonic()
        assert time.monotonic() - gone < 30
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert capfd.readouterr().err == ""


def address_in(file) -> str:
    """The address that a scheduler wrote; waits for it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            return json.loads(file.read_text(encoding="utf-8"))["address"]
        except (OSError, ValueError):
            time.sleep(0.1)
    raise TimeoutError(file)


def test_a_worker_keeps_what_it_opened_until_another_is_asked_for():
    made, closed = [], []

    def make(name: str):
        def made_now() -> str:
            made.append(name)
            return name

        return made_now

    for name in ("a", "a", "b", "a"):
        with kept(name, make(name), closed.append) as found:
            assert found == name
    assert made == ["a", "b", "a"]
    assert closed == ["a", "b"]


def test_a_worker_closes_what_nobody_asks_for_any_more(monkeypatch):
    monkeypatch.setattr("rlearndeep.prediction.cluster._IDLE_SECONDS", 0.3)
    closed = []
    for _ in range(3):
        with kept("one", lambda: "one", closed.append):
            time.sleep(0.5)  # somebody does
        assert not closed
    until = time.monotonic() + 30
    while not closed and time.monotonic() < until:
        time.sleep(0.05)
    assert closed == ["one"]
    with kept("one", lambda: "again", closed.append) as found:
        assert found == "again"
