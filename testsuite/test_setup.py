"""tools/setup.sh beside a registry that fails: a fake pip stands where the virtual environment has its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PIP = """#!/bin/bash
[ "$3" = --version ] && exit 0
echo x >>attempts
[ "$(wc -l <attempts)" -gt {failures} ] && exit 0
echo "ERROR: Exception:"
echo "Traceback (most recent call last):"
echo "ReadTimeoutError: the registry fell silent"
exit 2
"""


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def set_up(tmp_path: Path):
    """Runs setup.sh in a checkout whose pip fails so many times; gives the process and the number of attempts."""

    def run(failures: int) -> tuple[subprocess.CompletedProcess[str], int]:
        _script(tmp_path / ".venv/bin/python", PIP.format(failures=failures))
        _script(tmp_path / "bin/sleep", "#!/bin/bash\n")
        (tmp_path / "tools").mkdir()
        shutil.copy(ROOT / "tools/setup.sh", tmp_path / "tools")
        (tmp_path / "requirements.txt").write_text("torch\n")
        done = subprocess.run(
            ["tools/setup.sh", "demo"],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        return done, len((tmp_path / "attempts").read_text().split())

    return run


def test_a_download_that_breaks_twice_is_tried_again(set_up) -> None:
    done, attempts = set_up(failures=2)
    assert done.returncode == 0, done.stderr
    assert attempts == 3
    assert "the registry fell silent); trying again" in done.stdout


def test_a_registry_that_stays_silent_is_named_and_leaves_no_stamp(set_up, tmp_path: Path) -> None:
    done, attempts = set_up(failures=9)
    assert done.returncode == 1
    assert attempts == 3
    (line,) = done.stderr.splitlines()
    assert "requirements.txt: ReadTimeoutError: the registry fell silent" in line
    assert "GB are free here" in line
    assert not (tmp_path / ".venv/.setup-demo").exists()
