"""Temporary folders: gone with their use, and swept once their process died."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamhead.scratch import PREFIX, scratch_folder, sweep_scratch

DIES = """
import os
from dreamhead.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "output.mp4").write_bytes(b"half")
    print(folder, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def tmpdir_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def age(folder: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmpdir_of_all: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert (left / "output.mp4").exists()
    others = tmpdir_of_all / "dreamhead-outputs"
    others.mkdir()
    age(others)
    sweep_scratch()
    assert left.exists(), "it may be that of a process that hasn't locked it yet"
    age(left)
    with scratch_folder() as used:
        age(used)
        sweep_scratch()
        assert used.exists()
        assert (used.parent, used.name.startswith(PREFIX)) == (tmpdir_of_all, True)
    assert not used.exists()
    assert not left.exists()
    assert others.exists()
