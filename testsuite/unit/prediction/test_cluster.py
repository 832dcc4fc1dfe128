"""Work sent to two worker processes comes back in order, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import time

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.prediction.cluster import cluster, in_order, kept

distributed = pytest.importorskip("distributed")


def test_results_come_in_order_and_a_killed_worker_costs_only_its_items():
    def square(number: int) -> tuple[int, int]:
        import os
        import time

        time.sleep(0.05)
        return number * number, os.getpid()

    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "protocol": "tcp"}
    with distributed.LocalCluster(**options) as local, cluster(local.scheduler_address) as client:
        results = []
        for number, result in enumerate(in_order(client, square, range(40))):
            results.append(result)
            if number == 8:
                os.kill(result[1], signal.SIGKILL)
        assert [value for value, _ in results] == [number * number for number in range(40)]
        assert len({worker for _, worker in results}) >= 2


def test_an_address_without_a_scheduler_is_refused(monkeypatch):
    monkeypatch.setattr("rlearndeep.prediction.cluster._WAIT_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(DeepLearningError, match=r"'tcp://127.0.0.1:1' does not answer"), cluster("tcp://127.0.0.1:1"):
        pass
    assert time.monotonic() - started < 20


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
