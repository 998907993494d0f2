"""Images scaled down before the network sees them, against averages by hand and ONNX Runtime."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.export import export
from edgekit.workload import Batch


@pytest.fixture
def net(kit):
    return kit.settle(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 4),
        )
    )


def scaled(net, example, height, **decisions):
    (resolution,) = room.resolutions(net, example, [height])
    return room.make_plan(room.analyse(net, example), resolution=resolution, **decisions)


def halves(x):
    """Bilinear scaling by a half, pixel centres in the middle: the mean of two by two."""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).mean((3, 5))


def test_the_network_sees_the_smaller_image_and_the_rest_is_pruned_as_ever(net, kit):
    example = kit.batch(3, 12, 16)
    plan = scaled(net, example, 6, kept={"0": [0, 2, 3, 5]})
    pruned = room.prune(net, example, plan)
    assert pruned.proof.max_relative_difference < 1e-12
    unscaled = room.apply(net, replace(plan, resolution=None))
    with torch.no_grad():
        want = unscaled(torch.from_numpy(halves(example.args[0].numpy())))
        torch.testing.assert_close(pruned.model(example.args[0]), want)
        assert not torch.allclose(unscaled(example.args[0]), want, atol=1e-3)
    assert str(plan).splitlines() == ["0: 8 -> 4 channels", "input: 12x16 -> 6x8"]


def test_it_is_kept_with_the_plan_and_becomes_part_of_the_file(net, kit, tmp_path):
    example = kit.batch(3, 12, 12)
    plan = scaled(net, example, 6)
    room.save(tmp_path, plan, room.apply(net, plan))
    assert room.load_plan(tmp_path) == plan
    again = room.replay(lambda: net, tmp_path)
    exported = export(again, example, tmp_path / "model.onnx", dynamic="batch")
    x = kit.batch(3, 12, 12, n=3, seed=5).args[0]
    session = ort.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = net(torch.from_numpy(halves(x.numpy())))
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], want, atol=1e-5)


def test_a_second_input_by_name_stays_as_it_is(kit):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.word = nn.Conv2d(3, 8, 3), nn.Linear(5, 8)

        def forward(self, word, *, image):
            return self.conv(image).mean((2, 3)) * self.word(word)

    net = kit.settle(Two())
    example = Batch((torch.randn(2, 5),), {"image": torch.randn(2, 3, 8, 8)}, None)
    (resolution,) = room.resolutions(net, example, [4])
    plan = room.make_plan(room.analyse(net, example), resolution=resolution)
    with torch.no_grad():
        have = example.call(room.apply(net, plan))
        want = net(example.args[0], image=torch.from_numpy(halves(example.kwargs["image"].numpy())))
    torch.testing.assert_close(have, want)


def test_a_plan_goes_on_from_one_with_the_same_images_or_with_all_of_them(net, kit):
    example = kit.batch(3, 12, 12)
    plans = {height: scaled(net, example, height) for height in (6, 8)}
    whole = replace(plans[6], resolution=None)
    assert plans[6].includes(whole)
    assert plans[6].includes(plans[6])
    assert not plans[6].includes(plans[8])
    assert not whole.includes(plans[6])


def test_it_is_a_decision_like_any_other(net, kit):
    example = kit.batch(3, 12, 12)
    coupling = room.analyse(net, example)
    sizes = room.resolutions(net, example, [8, 6])
    ranked = room.importance(net, coupling, method="l1")
    possible = room.actions(coupling, ranked, grid=4, resolutions=sizes)
    about = {action.text: action for action in possible}
    assert "0: 8 -> 4" in about
    assert {action.subject for action in possible if action.resolution} == {"input"}
    plan = room.combine(coupling, [about["input: 12x12 -> 6x6"], about["0: 8 -> 4"]])
    assert plan.resolution == sizes[1]
    assert [each.group for each in plan.narrowings] == ["0"]
    assert not plan.blocks


@pytest.mark.parametrize(
    ("build", "example", "height", "message"),
    [
        (lambda: nn.Linear(4, 2), (2, 4), 8, "0 of the inputs are images"),
        (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8), 8, "height 8"),
        (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8), 4, "it answers in shapes [[2, 4, 2, 2]]"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
            (2, 3, 8, 8),
            4,
            "the model does not take images of 4x4: RuntimeError",
        ),
    ],
    ids=["no image", "no smaller", "other outputs", "one size only"],
)
def test_what_cannot_be_scaled_says_why(build, example, height, message):
    net = build()
    with pytest.raises(PruneError) as caught:
        room.resolutions(net, Batch((torch.randn(example),), {}, None), [height])
    assert message in str(caught.value)
    assert "where: --resolution" in str(caught.value)
    # Asking has left nothing behind.
    assert not net._forward_pre_hooks
