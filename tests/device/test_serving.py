"""Batches of many callers' inputs: the same answers as single runs, none lost, none mixed up."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.device import load
from edgekit.device.batches import why_single
from edgekit.device.serving import LATENCY_BOUNDS_S, Batcher, Closed, Overloaded
from edgekit.errors import DataError, EdgekitError
from edgekit.spec import IOSpec, TensorSpec

RANDOM = np.random.default_rng(7)
IMAGES = [RANDOM.integers(0, 256, (5, 6, 3), dtype=np.uint8) for _ in range(12)]
TENSORS = [RANDOM.standard_normal((1, 3, 4, 4)).astype(np.float32) for _ in range(12)]


class Gate:
    """A session whose runs wait until the gate is open; what is NaN makes it fail."""

    def __init__(self, session):
        self.session, self.open, self.entered, self.rows = session, threading.Event(), threading.Event(), []

    def run(self, names, feeds):
        self.entered.set()
        assert self.open.wait(20)
        (value,) = feeds.values()
        self.rows.append(len(value))
        if np.isnan(value).any():
            raise RuntimeError("not a number")
        return self.session.run(names, feeds)


@pytest.fixture
def model(bundle):
    return load(bundle)


@pytest.fixture
def gated(model):
    """A batcher whose first batch is held until the gate opens: who comes meanwhile waits."""
    made = []

    def make(**options):
        batcher = Batcher(model, **options)
        gate = Gate(model.session)
        batcher.model = dataclasses.replace(model, session=gate)
        first = batcher.submit(TENSORS[0])
        assert gate.entered.wait(20)
        made.append((batcher, gate))
        return SimpleNamespace(batcher=batcher, gate=gate, first=first)

    yield make
    for batcher, gate in made:
        gate.open.set()
        batcher.close()


def adds_up(statistics):
    ends = statistics.answered + statistics.failed + statistics.cancelled
    assert statistics.accepted == ends + statistics.waiting + statistics.running
    assert sum(statistics.latency) == statistics.answered + statistics.failed
    return True


def same(answer, expected):
    return answer.index == expected.index and np.allclose(answer.probabilities, expected.probabilities, atol=1e-6)


def test_predictions_come_out_right_from_several_threads(model):
    alone = [model.predict(each) for each in IMAGES]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.predict, IMAGES * 10))
    assert all(np.array_equal(a.probabilities, b.probabilities) for a, b in zip(together, alone * 10, strict=True))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), max_batch=st.integers(1, 5), max_wait_s=st.sampled_from([0.0, 0.001]))
def test_whatever_the_order_answers_are_those_of_single_runs(model, seed, max_batch, max_wait_s):
    order = random.Random(seed)  # noqa: S311 - an order, no secret
    inputs = [order.choice([*IMAGES, *TENSORS]) for _ in range(24)]
    expected = [model.predict(each) for each in inputs]
    found = [None] * len(inputs)
    with Batcher(model, max_batch=max_batch, max_wait_s=max_wait_s) as batcher:
        assert batcher.why_single == ("max_batch is 1" if max_batch == 1 else "")

        def caller(mine):
            for index in mine:
                time.sleep(order.random() / 2000)
                found[index] = batcher.submit(inputs[index]).result(20)

        threads = [threading.Thread(target=caller, args=(range(start, 24, 4),)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    statistics = batcher.statistics()
    assert adds_up(statistics)
    assert (statistics.accepted, statistics.answered, statistics.waiting) == (24, 24, 0)
    assert sum(size * count for size, count in statistics.batches.items()) == 24
    assert max(statistics.batches) <= max_batch


def test_what_waits_becomes_one_batch(gated, model):
    made = gated(max_batch=4)
    futures = [made.batcher.submit(each) for each in TENSORS[1:8]]
    assert made.batcher.statistics().waiting == 7
    made.gate.open.set()
    assert all(same(f.result(20), model.predict(x)) for f, x in zip(futures, TENSORS[1:8], strict=True))
    assert made.gate.rows == [1, 4, 3]
    assert made.batcher.statistics().batches == {1: 1, 3: 1, 4: 1}


def test_an_input_that_is_a_batch_itself_is_not_torn(gated, model):
    made = gated(max_batch=3)
    two, four = np.concatenate(TENSORS[:2]), np.concatenate(TENSORS[:4])
    futures = [made.batcher.submit(each) for each in (two, two, TENSORS[5], four)]
    made.gate.open.set()
    answers = [future.result(20) for future in futures]
    assert [len(answer) if isinstance(answer, tuple) else 1 for answer in answers] == [2, 2, 1, 4]
    assert same(answers[3][3], model.predict(TENSORS[3]))
    assert same(answers[2], model.predict(TENSORS[5]))
    assert made.gate.rows == [1, 3, 2, 4]


def test_company_is_waited_for_no_longer_than_it_takes_to_fill_a_batch(model):
    with Batcher(model, max_batch=3, max_wait_s=600) as batcher:
        futures = [batcher.submit(each) for each in TENSORS[:3]]
        assert all(future.result(20).label in model.labels for future in futures)
        assert batcher.statistics().batches == {3: 1}
        last = batcher.submit(TENSORS[4])
    assert last.done()


def test_who_comes_when_too_many_wait_is_turned_away_and_counted(gated):
    made = gated(max_batch=2, queue=3)
    futures = [made.batcher.submit(each) for each in TENSORS[:3]]
    called = []
    for _ in range(5):
        with pytest.raises(Overloaded, match="3 inputs wait"):
            made.batcher.submit(lambda: called.append(1))
    assert called == []
    statistics = made.batcher.statistics()
    assert (statistics.accepted, statistics.shed, statistics.waiting, statistics.running) == (4, 5, 3, 1)
    made.gate.open.set()
    assert all(future.result(20) for future in (*futures, made.first))
    assert made.batcher.statistics().shed == 5
    assert adds_up(made.batcher.statistics())


def test_a_fault_reaches_its_own_caller_only(gated, model):
    made = gated(max_batch=8)
    poison = np.full((1, 3, 4, 4), np.nan, np.float32)
    good, bad = made.batcher.submit(TENSORS[1]), made.batcher.submit(poison)
    odd = made.batcher.submit(np.zeros((5, 4, 3), np.float32))
    last = made.batcher.submit(TENSORS[2])
    with pytest.raises(DataError, match="uint8"):
        odd.result(20)
    made.gate.open.set()
    with pytest.raises(RuntimeError, match="not a number"):
        bad.result(20)
    assert same(good.result(20), model.predict(TENSORS[1]))
    assert same(last.result(20), model.predict(TENSORS[2]))
    statistics = made.batcher.statistics()
    assert (statistics.answered, statistics.failed) == (3, 2)
    assert adds_up(statistics)


def test_a_callable_is_called_for_the_input(model):
    with Batcher(model) as batcher:
        assert same(batcher.submit(lambda: IMAGES[0]).result(20), model.predict(IMAGES[0]))
        with pytest.raises(ZeroDivisionError):
            batcher.submit(lambda: 1 // 0).result(20)


def test_a_keyboard_interrupt_is_not_swallowed_and_frees_its_place(model):
    def interrupted():
        raise KeyboardInterrupt

    with Batcher(model, queue=1) as batcher:
        with pytest.raises(KeyboardInterrupt):
            batcher.submit(interrupted)
        assert batcher.submit(IMAGES[0]).result(20).label


def test_a_cancelled_input_is_not_run(gated):
    made = gated(max_batch=8)
    futures = [made.batcher.submit(each) for each in TENSORS[1:4]]
    assert futures[1].cancel()
    made.gate.open.set()
    assert futures[2].result(20)
    assert made.gate.rows == [1, 2]
    assert not futures[2].cancel()
    statistics = made.batcher.statistics()
    assert (statistics.answered, statistics.cancelled) == (3, 1)
    assert adds_up(statistics)


def test_closing_answers_what_waits(gated):
    made = gated(max_batch=2)
    futures = [made.batcher.submit(each) for each in TENSORS[1:6]]
    threading.Timer(0.05, made.gate.open.set).start()
    made.batcher.close()
    assert all(future.done() and not future.cancelled() for future in (*futures, made.first))
    with pytest.raises(Closed):
        made.batcher.submit(TENSORS[0])
    made.batcher.close()
    assert made.batcher.statistics().answered == 6


@pytest.mark.parametrize("how", [{"drain": False}, {"timeout_s": 0.05}])
def test_closing_can_cancel_what_waits(gated, how):
    made = gated(max_batch=2)
    futures = [made.batcher.submit(each) for each in TENSORS[1:6]]
    threading.Timer(0.2, made.gate.open.set).start()
    made.batcher.close(**how)
    assert made.first.result(20)
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(20)
    statistics = made.batcher.statistics()
    assert (statistics.answered, statistics.cancelled, statistics.waiting) == (1, 5, 0)
    assert adds_up(statistics)


def test_what_is_being_preprocessed_is_answered_or_cancelled_too(model):
    for drain in (True, False):
        begun, go = threading.Event(), threading.Event()

        def slowly(begun=begun, go=go):
            begun.set()
            assert go.wait(20)
            return IMAGES[0]

        batcher = Batcher(model)
        futures = []
        caller = threading.Thread(target=lambda: futures.append(batcher.submit(slowly)))  # noqa: B023 - joined below
        caller.start()
        assert begun.wait(20)
        closing = threading.Thread(target=batcher.close, kwargs={"drain": drain})
        closing.start()
        if not drain:
            closing.join(20)  # It waits for nobody.
        go.set()
        caller.join(20)
        closing.join(20)
        assert futures[0].cancelled() is not drain
        assert adds_up(batcher.statistics())
        assert batcher.statistics().waiting == 0


def test_coroutines(model):
    async def many():
        with Batcher(model, max_batch=4) as batcher:
            answers = await asyncio.gather(*[batcher.predict(each) for each in IMAGES])
            with pytest.raises(EdgekitError, match="picture"):
                await batcher.predict({"picture": TENSORS[0]})
            return answers, batcher.statistics()

    answers, statistics = asyncio.run(many())
    assert all(same(a, model.predict(b)) for a, b in zip(answers, IMAGES, strict=True))
    assert (statistics.answered, statistics.failed) == (12, 1)


def test_cancelling_a_coroutine_cancels_its_input(gated):
    async def impatient(batcher):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.predict(TENSORS[1]), 0.1)
        # One of two places is taken until the gate opens and the cancelled input is met.
        patient = asyncio.ensure_future(batcher.predict(TENSORS[2]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.predict(TENSORS[3])
        made.gate.open.set()
        return await patient

    made = gated(max_batch=8, queue=2)
    assert asyncio.run(impatient(made.batcher)).label
    statistics = made.batcher.statistics()
    assert (statistics.answered, statistics.cancelled, statistics.shed) == (2, 1, 1)
    assert adds_up(statistics)


def test_latencies_fall_into_their_buckets(model):
    times = iter([0.0, 0.003, 10.0, 10.0, 20.0, 40.0])
    with Batcher(model, max_wait_s=0.0, max_batch=1, clock=lambda: next(times)) as batcher:
        # Each input asks three times: when it comes, whether to wait on (not where a batch is full), and at its end.
        for _ in range(3):
            batcher.submit(TENSORS[0]).result(20)
        statistics = batcher.statistics()
    assert statistics.latency[LATENCY_BOUNDS_S.index(0.005)] == 1
    assert statistics.latency[0] == 1
    assert statistics.latency[-1] == 1
    assert statistics.latency_sum_s == pytest.approx(20.003)
    assert json.loads(json.dumps(statistics.to_dict()))["batches"] == {"1": 3}


@pytest.mark.parametrize("limit", [{"max_batch": 0}, {"queue": 0}, {"max_wait_s": -1}])
def test_limits_are_checked(model, limit):
    with pytest.raises(EdgekitError, match="Batcher"):
        Batcher(model, **limit)


def written(tmp_path, nodes, *, size=("batch", 4), out=("batch", 4), constants=(), golden=True):
    """A bundle of a graph from x to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        list(constants),
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(proto, tmp_path / "m.onnx")
    spec = IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=tuple(size)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=tuple(out)),),
    )
    shape = [1 if isinstance(each, str) else each for each in size]
    run = ReferenceEvaluator(proto).run
    inputs = [RANDOM.standard_normal(shape).astype(np.float32) for _ in range(2)]
    samples = [Golden(inputs={"x": x}, outputs={"y": run(None, {"x": x})[0]}) for x in inputs]
    return write_bundle(
        tmp_path / "g", name="g", variants={"g": Variant(path=tmp_path / "m.onnx")}, spec=spec, golden=samples * golden
    )


DYNAMIC = [
    helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
]


@pytest.mark.parametrize("golden", [True, False])
@pytest.mark.parametrize(
    ("nodes", "sizes", "words"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], {}, ""),
        ([helper.make_node("Relu", ["x"], ["y"])], {"size": (1, 4), "out": (1, 4)}, "is fixed"),
        (DYNAMIC, {}, "DynamicQuantizeLinear takes one scale"),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=0)], {}, "'y' differs by"),
        ([helper.make_node("ReduceMax", ["x"], ["y"])], {"out": ("one", "other")}, "not a row for each row"),
        (
            [helper.make_node("Reshape", ["x", "four"], ["y"])],
            {"constants": [numpy_helper.from_array(np.array([1, 4]), "four")]},
            "does not run on a batch",
        ),
    ],
)
def test_only_models_whose_rows_are_independent_get_batches(tmp_path, nodes, sizes, words, golden):
    found = why_single(load(written(tmp_path, nodes, golden=golden, **sizes)), 8)
    assert words in found if words else found == ""


def test_a_model_that_takes_no_batches_answers_one_by_one(tmp_path):
    model = load(written(tmp_path, [helper.make_node("Softmax", ["x"], ["y"], axis=0)]))
    with Batcher(model, max_batch=8, max_wait_s=0.01) as batcher:
        futures = [batcher.submit(np.full((1, 4), i, np.float32)) for i in range(5)]
        assert all(np.array_equal(future.result(20)["y"], np.ones((1, 4))) for future in futures)
        assert batcher.statistics().batches == {1: 5}


def test_inputs_of_different_sizes_are_not_put_together(tmp_path):
    model = load(written(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], size=("b", "n"), out=("b", "n")))
    with Batcher(model, max_batch=4, max_wait_s=0.05) as batcher:
        sizes = [3, 5, 3, 5, 3, 7]
        futures = [batcher.submit(np.full((1, size), size, np.float32)) for size in sizes]
        assert [future.result(20)["y"].tolist() for future in futures] == [[[size] * size] for size in sizes]
        assert sum(n * count for n, count in batcher.statistics().batches.items()) == 6
