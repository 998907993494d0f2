"""Node for tests: packages installed once, outside of the tree, and the sources put beside them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.required import absent

APPS = Path(__file__).parents[2] / "tools" / "device_apps"
SCRIPTS = Path(__file__).parent / "js"
PATIENCE_S = 280


def node():
    """The path of node; without it or npm the test skips, or fails where they are promised."""
    found = [shutil.which(name) for name in ("node", "npm")]
    if not all(found):
        absent("NODE", "no node and npm here: the JavaScript package is not tested")
    return found[0]


def workspace(folder, *packages):
    """`folder` with copies of packages (`js`, `web`), each beside the modules that its lock file names."""
    node()
    for name in packages:
        shutil.copytree(APPS / name, folder / name, ignore=shutil.ignore_patterns("node_modules", "dist"))
        (folder / name / "node_modules").symlink_to(_modules(name))
    return folder


def run(script, *arguments, where):
    """What `node script arguments...` prints, as JSON."""
    done = start(script, *arguments, where=where)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout)


def start(script, *arguments, where):
    """`node script arguments...`, run to its end."""
    words = [node(), str(script), *map(str, arguments)]
    return subprocess.run(words, cwd=where, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def _modules(name):
    """The installed modules of a package; installing them again takes an entry of the lock file to change."""
    package = APPS / name
    lock = hashlib.sha256((package / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgekit-tests"
    place = cache / f"{name}-{lock}"
    if not place.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
        for file in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(package / file, partial)
        done = subprocess.run(
            ["npm", "ci", "--no-progress"],
            cwd=partial,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"},
            check=False,
        )
        if done.returncode:
            shutil.rmtree(partial, ignore_errors=True)
            absent("NODE", f"npm ci for {name}: {(done.stderr or done.stdout)[-600:]}")
        try:
            partial.rename(place)
        except OSError:  # Another test run was faster.
            shutil.rmtree(partial, ignore_errors=True)
    return place / "node_modules"
