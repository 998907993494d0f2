"""Architectures by name: what can go, what stays and why, and that the rest computes the same."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.workload import Batch, digest_of


def widths(coupling):
    return {group.name: len(group) for group in coupling.groups}


def reasons(coupling):
    return "\n".join(f"{what}: {why}" for what, why in coupling.frozen)


def conv(cin, cout, k=3, **options):
    return nn.Sequential(
        nn.Conv2d(cin, cout, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(cout), nn.ReLU()
    )


class Net(nn.Module):
    """Modules by name, and the function that runs them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x):
        return self.run(self, *x)


@pytest.fixture(scope="module")
def resnet(shared):
    spec = importlib.util.spec_from_file_location("project", shared / "user-project" / "project.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.model()


@pytest.fixture(scope="module")
def resnet_coupling(resnet, kit):
    return room.analyse(resnet, kit.batch(3, 32, 32))


def test_resnet_with_padded_shortcuts_has_inner_widths_and_one_stream(resnet_coupling):
    assert widths(resnet_coupling) == {
        "conv1": 16,
        **{f"layer{s}.{b}.conv1": 8 << s for s in (1, 2, 3) for b in (0, 1, 2)},
    }
    assert [block.name for block in resnet_coupling.blocks] == [f"layer{s}.{b}" for s in (1, 2, 3) for b in (0, 1, 2)]


def test_resnet_equals_its_original_with_the_same_channels_set_to_zero(resnet, resnet_coupling, kit):
    """The padded stream: channel c of stage 1 is channel 8 + c of stage 2 and 24 + c of stage 3."""
    before = digest_of(resnet)
    stream, inner = [1, 5, 6, 12], [0, 3, 4, 9, 20, 31]
    kept = {
        "conv1": [c for c in range(16) if c not in stream],
        "layer3.1.conv1": [c for c in range(64) if c not in inner],
    }
    plan = room.make_plan(resnet_coupling, kept)
    outcome = room.prune(resnet, kit.batch(3, 32, 32), plan)
    assert digest_of(resnet) == before

    x = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    net = resnet.double()
    try:
        with torch.no_grad():

            def zero(value, channels):
                value[:, channels] = 0
                return value

            out = zero(F.relu(net.bn1(net.conv1(x))), stream)
            for shift, stage in ((0, net.layer1), (8, net.layer2), (24, net.layer3)):
                for block in stage:
                    hidden = F.relu(block.bn1(block.conv1(out)))
                    if block is net.layer3[1]:
                        hidden = zero(hidden, inner)
                    branch = zero(block.bn2(block.conv2(hidden)), [c + shift for c in stream])
                    out = F.relu(branch + block.shortcut(out))
            want = net.linear(out.mean((2, 3)))
            torch.testing.assert_close(outcome.model.double()(x), want, rtol=1e-10, atol=1e-12)
    finally:
        resnet.float()


def test_plain_network_with_flattening(kit):
    net = nn.Sequential(
        *conv(3, 16), nn.MaxPool2d(2), *conv(16, 24), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * 4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5),
    )  # fmt: skip
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert list(widths(coupling).values()) == [16, 24, 32]
    assert sum(p.numel() for p in outcome.model.parameters()) == (
        3 * 8 * 9 + 16 + 8 * 12 * 9 + 24 + 12 * 4 * 16 + 16 + 32 + 16 * 5 + 5
    )
    assert outcome.model[9].in_features == 48


def test_a_dense_network_that_concatenates(kit):
    def run(m, x):
        a = m.a(x)
        b = m.b(a)
        c = m.c(torch.cat([a, b], 1))
        return m.head(torch.cat([a, b, c], 1).mean((2, 3)))

    net = Net(run, a=conv(3, 8), b=conv(8, 16), c=conv(24, 8), head=nn.Linear(32, 4))
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 8, "b.0": 16, "c.0": 8}
    assert outcome.model.c[0].in_channels == 12


def test_the_same_channels_twice_in_one_dimension(kit):
    net = Net(
        lambda m, x: m.head((m.b(torch.cat([a := m.a(x), F.relu6(a)], 1)).repeat(1, 3, 1, 1)).mean((2, 3))),
        a=conv(3, 8),
        b=conv(16, 8),
        head=nn.Linear(24, 4),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 8, "b.0": 8}
    assert (outcome.model.b[0].in_channels, outcome.model.head.in_features) == (8, 12)


def test_depthwise_separable_with_inverted_residual(kit):
    def run(m, x):
        x = m.stem(x)
        return m.head((x + m.project(m.depthwise(m.expand(x)))).mean((2, 3)))

    net = Net(
        run,
        stem=conv(3, 8),
        expand=conv(8, 32, 1),
        depthwise=conv(32, 32, groups=32),
        project=conv(32, 8, 1)[:2],
        head=nn.Linear(8, 4),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"stem.0": 8, "expand.0": 32}
    assert outcome.model.depthwise[0].groups == outcome.model.depthwise[0].in_channels == 16
    assert [block.last for block in coupling.blocks] == ["project.1"]


def test_groups_of_a_convolution_and_of_a_group_norm_go_whole(kit):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, groups=4),
        nn.ReLU(),
        nn.Conv2d(32, 4, 3),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 9, 9))
    assert widths(coupling) == {"0": 4}
    assert coupling.groups[0].widths(8) == [2]
    assert coupling.groups[0].widths(4) == [3, 2, 1]
    pruned = outcome.model
    assert (pruned[1].num_groups, pruned[1].num_channels, pruned[3].groups, pruned[3].out_channels) == (2, 8, 2, 16)


@pytest.mark.parametrize("builtin", [False, True])
def test_channel_shuffle(kit, builtin):
    def shuffle(x):
        if builtin:
            return F.channel_shuffle(x, 2)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    def run(m, x):
        a, b = m.stem(x).chunk(2, 1)
        return m.head(m.last(shuffle(torch.cat([a, m.b(b)], 1))).mean((2, 3)))

    net = Net(run, stem=conv(3, 32), b=conv(16, 16), last=conv(32, 16), head=nn.Linear(16, 4))
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"stem.0": 16, "last.0": 16}
    assert outcome.model.last[0].in_channels == 16


def test_squeeze_and_excitation(kit):
    def run(m, x):
        x = m.stem(x)
        y = m.conv(x)
        return m.head((x + y * m.excite(m.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()).mean((2, 3)))

    net = Net(
        run,
        stem=conv(3, 16),
        conv=conv(16, 16)[:2],
        squeeze=nn.Conv2d(16, 8, 1),
        excite=nn.Conv2d(8, 16, 1),
        head=nn.Linear(16, 4),
    )
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"stem.0": 16, "squeeze": 8}
    assert [(block.last, block.whole, block.modules) for block in coupling.blocks] == [
        ("conv.1", "conv", ("excite", "squeeze"))
    ]


def test_u_net(kit):
    def run(m, x):
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        left, right = m.join(torch.cat([m.up(b), a, F.interpolate(b, scale_factor=2, mode="bilinear")], 1)).chunk(2, 1)
        return m.head(left * right)

    net = Net(
        run,
        a=conv(3, 8),
        b=conv(8, 16),
        up=nn.ConvTranspose2d(16, 12, 2, 2),
        join=conv(36, 16),
        head=nn.Conv2d(8, 2, 1),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 8, "b.0": 16, "up": 12, "join.0": 8}
    assert (outcome.model.up.in_channels, outcome.model.up.out_channels) == (8, 4)


def test_transformer_mlp_narrows_and_the_stream_of_its_input_stays(kit):
    def run(m, x):
        return m.head(m.norm(x + F.dropout(m.down(F.gelu(m.up(m.before(x)))), 0.1, m.training)).mean(1))

    net = Net(
        run,
        before=nn.LayerNorm(16),
        up=nn.Linear(16, 32),
        down=nn.Linear(32, 16),
        norm=nn.LayerNorm(16),
        head=nn.Linear(16, 3),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(5, 16), grid=8)
    assert widths(coupling) == {"up": 32}
    assert "add meets a fixed size" in reasons(coupling)
    assert outcome.model.up.out_features == outcome.model.down.in_features == 16
    assert [block.last for block in coupling.blocks] == ["down"]


def test_an_operator_without_a_rule_freezes_what_it_touches_only(kit):
    net = Net(lambda m, x: m.c(torch.triu(m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 8), c=nn.Conv2d(8, 2, 1))
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 8}
    assert "operator aten.triu.default" in dict(coupling.frozen)


@pytest.mark.parametrize(
    "code",
    [
        lambda x: x.view(x.shape[0], 16 * 4),
        lambda x: x.view(-1, 64),
        lambda x: x.reshape(x.shape[0], 4, 4, 4).flatten(1),
        lambda x: torch.cat([x.split(8, 1)[0], x.split(8, 1)[1] * x.split(8, 1)[0]], 1).flatten(1),
        lambda x: (x + torch.zeros(16, 2, 2)).flatten(1),
    ],
)
def test_sizes_written_as_numbers_are_found(kit, code):
    net = Net(lambda m, x: m.head(code(m.b(m.a(x)))), a=conv(3, 8), b=conv(8, 16), head=nn.Linear(64, 4))
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 2, 2))
    assert widths(coupling) == {"a.0": 8}


def test_groups_that_fail_together_do_not_pass_because_each_passes_alone(kit):
    """The code accepts any one width of 16, not two at once."""

    def run(m, x):
        a, b = m.a(x), m.b(x)
        if max(a.shape[1], b.shape[1]) < 16:
            message = "neither is whole"
            raise ValueError(message)
        return m.head_a(a) + m.head_b(b)

    net = Net(run, a=conv(3, 16), b=conv(3, 16), head_a=nn.Conv2d(16, 2, 1), head_b=nn.Conv2d(16, 2, 1))
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 16}
    assert "neither is whole" in dict(coupling.frozen)["b.0"]


def test_one_unsound_group_among_many_costs_few_probes(kit, monkeypatch):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(17)])

        def forward(self, x):
            for index, layer in enumerate(self.layers):
                x = layer(torch.relu(x)) * (1.0 if index != 11 else x.shape[-1])
            return x

    verbs = sys.modules["edgekit.prune.prune"]

    probes = []
    monkeypatch.setattr(
        verbs._Probe,
        "fault",
        lambda self, *given, plain=verbs._Probe.fault: probes.append(given) or plain(self, *given),
    )
    found = room.analyse(Deep().eval(), kit.batch(6))
    # The input of the twelfth layer is what it is scaled by.
    assert {group.name for group in found.groups} == {f"layers.{index}" for index in range(16) if index != 10}
    assert "layers.10" in dict(found.frozen)
    assert len(probes) < len(found.groups)


def test_tied_weights_go_together(kit, tmp_path):
    """A table that words are looked up in, and that says how likely each is in the end."""

    def fresh():
        torch.manual_seed(0)
        net = Net(
            lambda m, x: m.say(m.norm(m.look(x) + m.b(F.gelu(m.a(m.look(x)))))),
            look=nn.Embedding(9, 8),
            a=nn.Linear(8, 6),
            b=nn.Linear(6, 8),
            norm=nn.LayerNorm(8),
            say=nn.Linear(8, 9, bias=False),
        )
        net.say.weight = net.look.weight
        return kit.settle(net)

    net, words = fresh(), torch.randint(0, 9, (2, 5))
    example = Batch((words,), {}, None)
    coupling = room.analyse(net, example)
    assert widths(coupling) == {"look": 8, "a": 6}
    kept = [1, 2, 4, 7]
    pruned = room.prune(net, example, room.make_plan(coupling, {"look": kept}))
    small = pruned.model
    assert small.say.weight is small.look.weight
    assert (small.say.in_features, small.look.embedding_dim) == (4, 4)
    with torch.no_grad():
        table = net.look.weight[:, kept]
        y = table[words]
        y = y + F.linear(F.gelu(F.linear(y, net.a.weight[:, kept], net.a.bias)), net.b.weight[kept], net.b.bias[kept])
        y = F.layer_norm(y, (4,), net.norm.weight[kept], net.norm.bias[kept])
        torch.testing.assert_close(small(words), y @ table.T)
        for value in small.parameters():
            value.add_(torch.randn_like(value))
    room.save(tmp_path, pruned.plan, small)
    torch.testing.assert_close(room.replay(fresh, tmp_path)(words), small(words))
    lifted = room.lift(net, small, pruned.plan)
    assert lifted.say.weight is lifted.look.weight
    torch.testing.assert_close(lifted.look.weight[:, kept], small.look.weight)
    gone = [0, 3, 5, 6]
    torch.testing.assert_close(lifted.look.weight[:, gone], net.look.weight[:, gone])


def test_tied_layers_whose_sides_meet_stay(kit):
    net = Net(lambda m, x: m.c(m.b(F.relu(m.a(x)))), a=nn.Linear(8, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 4))
    net.b.weight = net.a.weight
    coupling = room.analyse(kit.settle(net), kit.batch(8))
    assert not coupling.groups
    assert "linear reads fixed features" in reasons(coupling)


def test_a_module_that_is_called_twice(kit):
    net = Net(
        lambda m, x: m.head((m.twice(m.twice(m.stem(x))) + m.side(x)).mean((2, 3))),
        stem=conv(3, 16),
        twice=conv(16, 16),
        side=conv(3, 16),
        head=nn.Linear(16, 4),
    )
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"stem.0": 16}


def test_slopes_for_each_channel_and_instance_norm(kit):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.InstanceNorm2d(16, affine=True, track_running_stats=True), nn.PReLU(16),
        nn.Conv2d(16, 8, 3), nn.PReLU(), nn.Conv2d(8, 4, 3),
    )  # fmt: skip
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 9, 9))
    assert widths(coupling) == {"0": 16, "3": 8}
    assert (outcome.model[1].num_features, outcome.model[2].num_parameters, outcome.model[4].num_parameters) == (
        8,
        8,
        1,
    )


def test_an_activation_that_makes_something_of_zero(kit):
    """Sigmoid makes 0.5 of a silenced channel, the proof's reference must not pass that on, nor the pruned model."""
    net = kit.settle(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, 1)))
    coupling, outcome = kit.check(net, kit.batch(3, 4, 4), exact=False)
    x = kit.batch(3, 4, 4).args[0].double()
    kept = list(outcome.plan.narrowings[0].kept)
    weight, bias = (net[0].weight[kept].double(), net[0].bias[kept].double())
    want = F.conv2d(torch.sigmoid(F.conv2d(x, weight, bias)), net[2].weight[:, kept].double(), net[2].bias.double())
    torch.testing.assert_close(outcome.model.double()(x), want)
    assert widths(coupling) == {"0": 8}


def test_gated_units_pixel_shuffle_stacks_and_two_kinds_of_pooling(kit):
    def run(m, x):
        y = F.glu(m.a(x), 1)
        y = torch.stack([m.b(y), m.c(y)], 1).sum(1)
        y = F.pixel_shuffle(m.d(y), 2)
        return m.head(torch.cat([F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(y, 1)], 1).flatten(1))

    net = Net(run, a=nn.Conv2d(3, 16, 1), b=conv(8, 8), c=conv(8, 8), d=conv(8, 32), head=nn.Linear(16, 4))
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a": 8, "b.0": 8, "d.0": 8}
    assert (outcome.model.a.out_channels, outcome.model.d[0].out_channels, outcome.model.head.in_features) == (8, 16, 8)


def test_an_embedding_narrows(kit):
    net = Net(lambda m, x: m.head(m.table(x).mean(1)), table=nn.Embedding(9, 16), head=nn.Linear(16, 3))
    example = Batch((torch.tensor([[1, 2, 3], [0, 8, 4]]),), {}, None)
    kit.settle(net)
    coupling = room.analyse(net, example)
    ranks = room.importance(net, coupling, method="l2").channels["table"]
    torch.testing.assert_close(torch.tensor(ranks).sqrt(), net.table.weight.detach().double().norm(dim=0).sqrt())
    outcome = room.prune(net, example, kit.half(coupling))
    assert (outcome.model.table.embedding_dim, outcome.proof.inputs) == (8, 1)


def test_unused_modules_stay_as_they_are(kit):
    net = Net(lambda m, x: m.head(m.a(x).mean((2, 3))), a=conv(3, 8), idle=nn.Linear(8, 8), head=nn.Linear(8, 4))
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 8, 8))
    assert widths(coupling) == {"a.0": 8}
    assert ("idle.weight dim 0", "forward does not use it") in coupling.frozen
    assert outcome.model.idle.weight.shape == (8, 8)


def test_a_model_that_torch_export_refuses(kit):
    net = Net(lambda m, x: m.a(x) if float(x.sum()) > 0 else x, a=nn.Linear(3, 3))
    with pytest.raises(PruneError, match=r"torch\.export refuses the model"):
        room.analyse(net, kit.batch(3))


def test_groups_of_a_transposed_convolution_go_whole(kit):
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.ConvTranspose2d(16, 32, 2, 2, groups=8), nn.ReLU(), nn.Conv2d(32, 4, 1)
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 6, 6), exact=False)
    assert widths(coupling) == {"0": 8}
    pruned, kept = outcome.model, outcome.plan.narrowings[0].kept
    assert (pruned[2].in_channels, pruned[2].out_channels, pruned[2].groups) == (8, 16, 4)
    x = torch.randn(2, 3, 6, 6)
    two, four = ([n * group + i for group in kept for i in range(n)] for n in (2, 4))
    y = F.conv2d(x, net[0].weight[two], net[0].bias[two]).relu()
    y = F.conv_transpose2d(y, net[2].weight[two], net[2].bias[four], 2, groups=4).relu()
    torch.testing.assert_close(pruned(x), F.conv2d(y, net[4].weight[:, four], net[4].bias))


def test_weights_made_by_a_parametrization_stay(kit):
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), nn.ReLU(), nn.Conv2d(8, 4, 3))
    coupling = room.analyse(kit.settle(net), kit.batch(3, 8, 8))
    assert not coupling.groups
    assert dict(coupling.frozen)["operator aten.conv2d.default"] == (
        "its rule does not cover this use (1×); what it touches stays"
    )


def test_a_branch_that_starts_at_zero_does_not_hide_code_that_depends_on_the_width(kit):
    def run(m, x):
        x = m.stem(x)
        y = m.a(x)
        return m.head(x + m.norm(m.b(y * 2 if y.shape[1] == 16 else y)))

    net = Net(
        run,
        stem=nn.Conv2d(3, 8, 1),
        a=nn.Conv2d(8, 16, 1),
        b=nn.Conv2d(16, 8, 1),
        norm=nn.BatchNorm2d(8),
        head=nn.Conv2d(8, 2, 1),
    )
    kit.settle(net)
    nn.init.zeros_(net.norm.weight)
    coupling, _ = kit.check(net, kit.batch(3, 4, 4))
    assert widths(coupling) == {"stem": 8}
    assert "differs from the masked original" in dict(coupling.frozen)["a"]
