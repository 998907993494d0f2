"""The vectors that loaders in other languages are held against are those that numpy gives, and small."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "tools" / "device_apps" / "vectors"


def test_they_are_up_to_date_and_small():
    done = subprocess.run(
        [sys.executable, FOLDER / "make_vectors.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sum(path.stat().st_size for path in FOLDER.glob("*.json")) < 300_000
