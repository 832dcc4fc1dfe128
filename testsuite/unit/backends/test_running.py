"""The loop of a run, whatever the framework."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rlearndeep.backends.running import Epoch, NotFinite, Run, Surroundings
from rlearndeep.learning.options import Settings, resolved
from rlearndeep.learning.pretraining import LOSS


class Lost:
    """Learns nothing but that its loss is no number."""

    rate = 0.1

    def epoch(self, *_: Any) -> Epoch:
        return Epoch(math.nan, None, None)


@pytest.mark.parametrize(("rank", "stays"), (("0", False), ("1", True)))
def test_only_the_first_process_forgets_a_checkpoint_that_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, stays: bool
) -> None:
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setenv("RANK", rank)
    options: Any = resolved(Settings(devices=2), "cell", (4, 4), 8)
    around = Surroundings(options, LOSS, tmp_path, progress=pytest.fail, warn=pytest.fail)
    learner: Any = Lost()
    with pytest.raises(NotFinite, match=r"it is nan in epoch 1 with learning_rate=0\.1"):
        Run(0.1).epochs(learner, None, None, around)
    assert (tmp_path / "state.json").exists() == stays
