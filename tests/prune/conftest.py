"""What the tests of pruning share: an example, and a reference made by other means than the room's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekit import prune as room
from edgekit.workload import Batch


class Kit:
    """Short words for what every test does."""

    @staticmethod
    def batch(*shape, n=2, seed=0):
        return Batch((torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)),), {}, None)

    @staticmethod
    def settle(model, seed=0):
        """Weights and statistics unlike those that layers start with, so that a mix-up of channels shows."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, value in [*model.named_parameters(), *model.named_buffers()]:
                if value.is_floating_point():
                    drawn = torch.rand(value.shape, generator=generator)
                    value.copy_(
                        drawn + 0.5 if "running" in name else (drawn - 0.5) * 2 / max(1, value[0].numel()) ** 0.5
                    )
        return model.eval()

    @staticmethod
    def half(coupling, *, grid=4, scope="uniform", keep=0.5):
        values = torch.Generator().manual_seed(1)
        ranks = {g.name: torch.rand(len(g), generator=values).numpy() for g in coupling.groups}
        return room.plan(coupling, room.Importance(method="l2", channels=ranks), keep=keep, grid=grid, scope=scope)

    @staticmethod
    def silenced(model, plan):
        """A copy whose layers answer zero on the channels that go: by hooks on outputs, readers are left as they are.

        It stands for the pruned model where what lies between layers makes zero of zero.
        """
        twin = copy.deepcopy(model).double()
        modules = dict(twin.named_modules())
        for name, axes in plan.slices.items():
            owner = modules[name.rpartition(".")[0]]
            axis = 1 if isinstance(owner, nn.ConvTranspose2d) else 0
            if name.endswith("weight") and axis in axes:
                at = 1 if not isinstance(owner, nn.Linear | nn.Embedding) else -1
                gone = list(axes[axis])
                owner.register_forward_hook(
                    lambda _m, _i, out, at=at, gone=gone: out.index_fill(at, torch.tensor(gone), 0)
                )
        return twin

    def check(self, model, example, *, grid=4, keep=0.5, scope="uniform", exact=True):
        """Analyse, prune by half, and compare with the silenced original; gives the coupling and the outcome."""
        coupling = room.analyse(model, example)
        plan = self.half(coupling, grid=grid, keep=keep, scope=scope)
        outcome = room.prune(model, example, plan)
        if exact:
            fresh = Batch(tuple(torch.randn_like(x).double() for x in example.args), {}, None)
            with torch.no_grad():
                want = fresh.call(self.silenced(model, plan))
                have = fresh.call(copy.deepcopy(outcome.model).double())
            torch.testing.assert_close(have, want, rtol=1e-10, atol=1e-12)
        return coupling, outcome


@pytest.fixture(scope="session")
def kit():
    return Kit()
