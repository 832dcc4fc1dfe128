"""scikit-learn in a process of its own, which gets ready while this one reads maps.

Importing it takes as long as reading a map of 6,000 x 6,000 cells, and holds Python's lock meanwhile, so a thread would
not do. The process ends with its input, however this one ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlearndeep.accuracy.metrics import table_scores

_LIBRARY = str(Path(__file__).resolve().parents[2])
_PROGRAM = f"import sys; sys.path.insert(0, {_LIBRARY!r}); from rlearndeep.accuracy.scorer import serve; serve()"


class Scorer:
    """Scores tables elsewhere; where the process fails, in this one."""

    def __init__(self) -> None:
        # Scores need no threads, and pools of them take time to start. What lies in the current directory is no module.
        self._process: subprocess.Popen[str] | None = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def of_table(self, table: NDArray) -> dict[str, Any]:
        """See :func:`metrics.table_scores`."""
        answer = self._asked(table)
        return table_scores(table) if answer is None else answer

    def _asked(self, table: NDArray) -> dict[str, Any] | None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        rows, cols = np.nonzero(table)
        entries = [values.tolist() for values in (rows, cols, table[rows, cols])]
        try:
            process.stdin.write(json.dumps([len(table), *entries]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):  # it is gone: the error that it met is met here again
            self._end()
            return None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def serve() -> None:
    """Answer tables, one a line, until the input ends."""
    table_scores(np.eye(2, dtype=np.int64))
    for line in sys.stdin:
        size, rows, cols, counts = json.loads(line)
        table = np.zeros((size, size), dtype=np.asarray(counts).dtype if counts else np.int64)
        table[rows, cols] = counts
        print(json.dumps(table_scores(table)), flush=True)
