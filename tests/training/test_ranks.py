from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import importlib.util, json, os, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("fixtures", sys.argv[1])
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    from edgekit.training import FitConfig, fit
    from edgekit.workload import digest_of
    folder, seen = Path(sys.argv[2]), []
    class Numbered(fixtures.Blobs):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)
    settings = FitConfig(epochs=1, batch_size=32, precision="fp32", channels_last=False, threads=1, workers=0)
    result = fit(fixtures.make_net(), Numbered(), fixtures.cross_entropy, settings, checkpoint=folder / "fit.pt")
    rank = os.environ["RANK"]
    (folder / f"rank{rank}.json").write_text(json.dumps({"digest": digest_of(result.model), "seen": seen[-48:]}))
    """
)


@pytest.mark.slow
def test_two_processes_share_the_data_and_end_with_the_same_weights(tmp_path, request):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    conftest = request.path.parent / "conftest.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(conftest), str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["digest"] == second["digest"]
    assert not set(first["seen"]) & set(second["seen"])
    assert sorted(first["seen"] + second["seen"]) == list(range(96))
    assert (tmp_path / "fit.pt").is_file()
