import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import EdgekitError
from edgekit.explain.drift import Explained
from edgekit.explain.gradients import GRAD_CAM, INTEGRATED, SALIENCY, attributions, gradients
from edgekit.explain.grid import grid_for
from edgekit.explain.layers import last_hidden, last_spatial, layer_of
from edgekit.explain.samples import Sample
from edgekit.workload import Batch


class Net(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Tanh())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.pool(self.body(torch.relu(self.stem(x)))).flatten(1))


@pytest.fixture
def net():
    return Net().eval()


@pytest.fixture
def batch():
    return Batch((torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(1)),), {}, None)


@pytest.fixture
def explained(batch):
    sample = Sample(index=0, batch=batch, feeds={}, target=None)
    return Explained(sample=sample, output=1, maps={}, answers={}, right={}, correlations={})


GRID = grid_for("image", (1, 2, 8, 8))


@pytest.mark.parametrize("centred", [False, True])
def test_integrated_gradients_sum_up_to_the_score(net, batch, centred):
    found = attributions(net, batch, 2, GRID, fill=np.full((1, 2, 1, 1), 0.3), centred=centred, layer=None)
    x = batch.args[0]
    with torch.no_grad():
        scores = net(torch.cat([x, torch.full_like(x, 0.3)]))
    if centred:
        scores -= scores.mean(1, keepdim=True)
    assert found.maps[INTEGRATED].sum() == pytest.approx(float(scores[0, 2] - scores[1, 2]), abs=2e-3)
    assert found.gap < 0.02


def test_saliency_is_the_largest_gradient_of_each_place(net, batch):
    found = attributions(net, batch, 0, GRID, fill=np.zeros(()), centred=False, layer=None)
    x = batch.args[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[0, 0], x)
    np.testing.assert_allclose(found.maps[SALIENCY], gradient[0].abs().amax(0).numpy(), rtol=1e-5)


def test_grad_cam_weighs_channels_by_the_mean_of_their_gradient(net, batch):
    found = attributions(net, batch, 1, GRID, fill=np.zeros(()), centred=False, layer="body")
    with torch.no_grad():
        features = net.body(torch.relu(net.stem(batch.args[0])))
    # The mean over places feeds the linear head: the gradient is the head's weight over the number of places.
    cam = torch.relu((features * (net.head.weight[1] / 16)[None, :, None, None]).sum(1, keepdim=True))
    wanted = nn.functional.interpolate(cam, (8, 8), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found.maps[GRAD_CAM], wanted[0, 0].detach().numpy(), atol=1e-6)


def test_layers_are_found_by_their_outputs(net, batch):
    assert last_spatial(net, batch) == "body"
    assert last_hidden(net, batch) == "pool"
    flat = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    vector = Batch((torch.zeros(1, 4),), {}, None)
    assert (last_spatial(flat, vector), last_hidden(flat, vector)) == (None, "1")
    with pytest.raises(EdgekitError, match="no module 'bodi'"):
        layer_of(net, "bodi")


def test_a_network_agrees_with_itself_and_less_with_another(net, explained):
    torch.manual_seed(5)
    twin = gradients({"original": net, "compressed": net}, [explained], GRID, fill=np.zeros(()), centred=True)
    assert {method: each.value for method, each in twin.correlations.items()} == {
        SALIENCY: 1.0,
        INTEGRATED: 1.0,
        GRAD_CAM: 1.0,
    }
    assert twin.layers == {"original": "body", "compressed": "body"}
    other = gradients(
        {"original": net, "compressed": Net(4).eval()}, [explained], GRID, fill=np.zeros(()), centred=True
    )
    assert other.correlations[INTEGRATED].value < 0.9


def test_where_a_method_does_not_apply_it_says_so():
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    sample = Sample(index=0, batch=Batch((torch.ones(1, 4),), {}, None), feeds={}, target=None)
    each = Explained(sample=sample, output=1, maps={}, answers={}, right={}, correlations={})
    found = gradients({"original": net}, [each], grid_for("features", (1, 4)), fill=np.zeros(()), centred=True)
    assert found.notes == [
        "Grad-CAM does not apply to the original network: no layer of it has an output [n, channels, h, w]"
    ]
    assert found.correlations == {}
    assert found.maps[0]["original"].maps[SALIENCY].shape == (4,)
