r"""A policy as a user's project: a double DQN balances a pole on a cart (gymnasium's CartPole-v1).

    python tools/reference/control.py train cartpole
    edgekit compress tools/reference/control.py:cartpole --train tools/reference/control.py:train_data \
        --test tools/reference/control.py:test_data --task tools/reference/control.py:task

The data are what the trained policy sees and does; `play` says what any policy, an ONNX file included, earns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from networks.policy import QNetwork
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from training import Recipe, Run, command_line, trained

from edgekit.tasks import Task, custom, outputs_of

ENVIRONMENT = "CartPole-v1"
DISCOUNT, BATCH, WARMUP, TARGET_EVERY = 0.99, 128, 1000, 250


def environment() -> Any:
    """A fresh environment; needs gymnasium."""
    import gymnasium

    return gymnasium.make(ENVIRONMENT)


def train_dqn(epochs: float) -> nn.Module:
    """Double DQN (H. van Hasselt, A. Guez and D. Silver, 2016); an epoch is 1,000 steps. What did best is kept."""
    world, rng = environment(), np.random.default_rng(0)
    network = QNetwork()
    target, best, best_return = copy.deepcopy(network), copy.deepcopy(network), -1.0
    optimizer = torch.optim.Adam(network.parameters(), 5e-4)
    memory: list[tuple[np.ndarray, int, float, np.ndarray, bool]] = []
    seen, _ = world.reset(seed=0)
    steps = int(1000 * epochs)
    for step in range(steps):
        explore = rng.uniform() < max(0.02, 1 - step / (0.3 * steps))
        action = int(rng.integers(2)) if explore else _greedy(network, seen)
        following, reward, ended, cut, _ = world.step(action)
        memory.append((seen, action, float(reward), following, bool(ended)))
        seen = world.reset()[0] if ended or cut else following
        if step < WARMUP or step % 2:
            continue
        rows = [memory[place] for place in rng.integers(max(0, len(memory) - 20_000), len(memory), BATCH)]
        states, actions, rewards, nexts, ends = (
            torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)
        )
        with torch.no_grad():
            chosen = network(nexts).argmax(1, keepdim=True)
            worth = rewards.float() + DISCOUNT * (~ends).float() * target(nexts).gather(1, chosen)[:, 0]
        loss = F.smooth_l1_loss(network(states).gather(1, actions[:, None])[:, 0], worth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        if step % TARGET_EVERY == 0:
            target.load_state_dict(network.state_dict())
        if step % 2000 == 0 and (earned := float(np.mean(play(_policy(network), episodes=5, seed=1)))) >= best_return:
            best, best_return = copy.deepcopy(network), earned
            print(f"step {step}: return {earned:.0f}", flush=True)
    return best.eval()


@torch.no_grad()
def _greedy(network: nn.Module, observation: np.ndarray) -> int:
    return int(network(torch.from_numpy(observation)[None]).argmax())


def _policy(network: nn.Module) -> Callable[[np.ndarray], int]:
    return lambda observation: _greedy(network, observation)


def play(policy: Callable[[np.ndarray], int], *, episodes: int = 20, seed: int = 10_000) -> list[float]:
    """What `policy` (observation float32 [4] to action) earns in each of some episodes, 500 at most."""
    world, returns = environment(), []
    for episode in range(episodes):
        seen, _ = world.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            seen, reward, ended, cut, _ = world.step(policy(seen))
            total, over = total + float(reward), ended or cut
        returns.append(total)
    return returns


@cache
def observations(split: str) -> TensorDataset:
    """Items are (float32 [4], int64): what the policy sees while one action in five is drawn, what it does."""
    network, world = cartpole(), environment()
    rng = np.random.default_rng(0 if split == "train" else 1)
    rows = []
    count = 6000 if split == "train" else 3000
    seen, _ = world.reset(seed=20_000 if split == "train" else 30_000)
    while len(rows) < count:
        rows.append(seen)
        action = int(rng.integers(2)) if rng.uniform() < 0.2 else _greedy(network, seen)
        seen, _, ended, cut, _ = world.step(action)
        if ended or cut:
            seen, _ = world.reset()
    states = torch.from_numpy(np.array(rows, np.float32))
    with torch.no_grad():
        return TensorDataset(states, network(states).argmax(1))


def task() -> Task:
    """How often the action is that of the original; distillation matches what actions are worth."""
    return custom(
        name="policy",
        metric="same action as the original",
        unit="points",
        scale=100.0,
        loss=lambda output, target: F.cross_entropy(outputs_of(output)[0].float(), target),
        per_sample=lambda outputs, target: (outputs[0].argmax(1) == target).astype(float),
        agreement=lambda a, b: (a[0].argmax(1) == b[0].argmax(1)).astype(float),
    )


def figures(run: Run) -> dict[str, float]:
    """What the policy earns on average over 20 episodes that nobody has seen."""
    return {"return (of 500)": float(np.mean(play(lambda seen: int(run({"observation": seen[None]})[0].argmax()))))}


def _score(network: nn.Module, data: Dataset[Any]) -> str:
    del data
    return f"return {np.mean(play(_policy(network.eval()))):.1f} of 500"


def _nothing() -> TensorDataset:
    """Observations to count operations with; the policy learns from what it does itself."""
    return TensorDataset(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))


RECIPES = {"cartpole": Recipe(network=QNetwork, epochs=40, by_hand=train_dqn, score=_score, data=(_nothing, _nothing))}


def cartpole() -> nn.Module:
    """The trained policy."""
    return trained("cartpole", "control.py", RECIPES)


def train_data() -> TensorDataset:
    """What the policy sees and does."""
    return observations("train")


def test_data() -> TensorDataset:
    """What it sees and does in other episodes."""
    return observations("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
