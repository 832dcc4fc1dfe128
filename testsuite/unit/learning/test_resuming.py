"""When a run may go on from the checkpoint of another one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from rlearndeep.errors import DeepLearningError
from rlearndeep.learning import resuming
from rlearndeep.learning.options import Settings
from rlearndeep.learning.resuming import begin, finish, locked, record_of, run_folder
from synthetic_patches import make_patches


def record(directory: Path, name: str = "patches", **values: Any) -> dict[str, Any]:
    if not (directory / name).is_dir():
        make_patches(directory / name, size=4, count=10, **values)
    from rlearndeep.patches import PatchDataset

    return record_of(Settings(epochs=3), [PatchDataset.open(directory / name)])


def test_a_checkpoint_is_neither_forgotten_nor_used_unasked(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "model")
    with locked(folder):
        assert not begin(folder, record(tmp_path), 0, resume=False, overwrite=False)
        (folder / "precious").write_text("state")
        with pytest.raises(DeepLearningError, match="-r to go on"):
            begin(folder, record(tmp_path), 2, resume=False, overwrite=False)
        assert begin(folder, record(tmp_path), 2, resume=True, overwrite=True)
        assert (folder / "precious").exists()
        assert not begin(folder, record(tmp_path), 2, resume=False, overwrite=True)
        assert not (folder / "precious").exists()
    finish(folder)
    assert not folder.exists()


def test_a_difference_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "model")
    with locked(folder):
        begin(folder, record(tmp_path), 0, resume=True, overwrite=False)
        own = record(tmp_path)
        others = (
            ({**own, "settings": {**own["settings"], "epochs": 9}}, "epochs was 3, now it is 9"),
            (record(tmp_path, "other", seed=7), "patches it began with"),
        )
        for other, fragment in others:
            with pytest.raises(DeepLearningError, match=fragment) as caught:
                begin(folder, other, 2, resume=True, overwrite=False)
            assert "\n" not in str(caught.value)
        (folder / "run.json").write_text("[")
        with pytest.raises(DeepLearningError, match="damaged"):
            begin(folder, own, 2, resume=True, overwrite=False)


def test_the_machine_and_the_place_of_the_patches_may_change(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "model")
    with locked(folder):
        begin(folder, record(tmp_path), 0, resume=False, overwrite=False)
        shutil.move(tmp_path / "patches", tmp_path / "moved")
        assert begin(folder, record(tmp_path, "moved"), 1, resume=True, overwrite=False)
    one, other = (record_of(Settings(device=device, nprocs=2), []) for device in ("cpu", "cuda"))
    assert one == other


def test_two_runs_do_not_write_one_model(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "model")
    with locked(folder), pytest.raises(DeepLearningError, match="one run at a time"), locked(folder):
        pass
    with locked(folder):
        pass


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepLearningError, match="must be writable"), locked(run_folder(tmp_path / "file" / "model")):
        pass


def test_a_disk_that_is_full_at_the_start_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resuming, "write_text", full)
    folder = run_folder(tmp_path / "model")
    with locked(folder), pytest.raises(DeepLearningError, match=r"must be writable; .* \(No space left on device\)"):
        begin(folder, record(tmp_path), 0, resume=False, overwrite=False)
