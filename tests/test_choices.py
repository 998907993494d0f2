"""What `edgekit.choice` gives outside a search and inside, and what it refuses."""

import subprocess
import sys
import threading

import pytest

import edgekit
from edgekit.choices import Choice, SearchSpace, choosing, replaying
from edgekit.errors import EdgekitError


def builder():
    width = edgekit.choice("width", [16, 32, 64], default=32)
    norm = edgekit.choice("norm", ["batch", "group"])
    groups = edgekit.choice("groups", [4, 8]) if norm == "group" else 0
    return width, norm, groups


def test_outside_a_search_the_default_is_given_and_else_the_first():
    assert builder() == (32, "batch", 0)


def test_inside_what_is_picked_is_given_and_recorded():
    with choosing(lambda choice: len(choice.options) - 1) as made:
        assert builder() == (64, "group", 8)
    assert made.values == {"width": 64, "norm": "group", "groups": 8}
    assert str(made.space) == "width: 16 | [32] | 64\nnorm: [batch] | group\ngroups: [4] | 8"
    assert made.space.size == 12
    assert builder() == (32, "batch", 0)


def test_a_choice_under_a_condition_is_in_the_space_of_those_networks_alone():
    with choosing(lambda _: 0) as made:
        builder()
    assert [each.name for each in made.space.choices] == ["width", "norm"]


def test_values_replay_and_what_is_missing_takes_its_default():
    with choosing(replaying({"norm": "group", "groups": 8})) as made:
        assert builder() == (32, "group", 8)
    assert made.values == {"width": 32, "norm": "group", "groups": 8}


def test_a_name_asked_twice_is_one_choice():
    asked = []
    with choosing(lambda choice: asked.append(choice.name) or 1):
        assert [edgekit.choice("width", [1, 2]) for _ in range(3)] == [2, 2, 2]
    assert asked == ["width"]


def test_another_thread_is_in_no_search():
    got = []
    with choosing(lambda _: 2):
        thread = threading.Thread(target=lambda: got.append(builder()))
        thread.start()
        thread.join()
    assert got == [(32, "batch", 0)]


def test_a_search_ends_where_its_builder_raises():
    with pytest.raises(ZeroDivisionError), choosing(lambda _: 2):
        1 / 0  # noqa: B018
    assert builder() == (32, "batch", 0)


def test_numbers_in_rising_order_are_a_scale_and_others_are_kinds():
    def ordered(*options):
        return Choice(name="a", options=options).is_ordered

    assert ordered(1, 2, 4)
    assert ordered(0.1, 1, 2.5)
    assert not ordered(2, 1)
    assert not ordered("1", "2")
    assert not ordered(False, True)
    assert not ordered(1, "2")


def test_true_is_not_one():
    both = Choice(name="a", options=(1, True))
    assert (both.index(1), both.index(True)) == (0, 1)


@pytest.mark.parametrize(
    ("name", "options", "default", "problem"),
    [
        ("a", [], None, "no options"),
        ("", [1], None, "the name is ''"),
        ("a", [1, 1], None, "the options [1, 1]"),
        ("a", [1, None], None, "the option None"),
        ("a", [[1], [2]], None, "the option [1]"),
        ("a", [1.0, float("nan")], None, "the option nan"),
        ("a", [1, 2], 3, "got 3"),
        ("a", [1, 2], True, "got True"),
    ],
)
def test_what_is_no_choice_is_refused(name, options, default, problem):
    with pytest.raises(EdgekitError) as caught:
        edgekit.choice(name, options, default=default)
    assert caught.value.problem == problem
    assert "edgekit.choice" in caught.value.where


def test_one_name_with_other_options_is_refused():
    with choosing(lambda _: 0):
        edgekit.choice("width", [1, 2])
        with pytest.raises(EdgekitError, match=r"width: \[1\] \| 3, but before width: \[1\] \| 2"):
            edgekit.choice("width", [1, 3])


def test_a_space_joins_what_two_networks_asked_for_and_survives_json():
    first = SearchSpace(choices=(Choice(name="a", options=(1, 2)),))
    second = SearchSpace(choices=(Choice(name="b", options=("x",)), Choice(name="a", options=(1, 2))))
    joined = first.joined(second)
    assert [each.name for each in joined.choices] == ["a", "b"]
    assert SearchSpace.from_dict(joined.to_dict()) == joined
    with pytest.raises(EdgekitError, match="but before"):
        joined.joined(SearchSpace(choices=(Choice(name="a", options=(1, 3)),)))


def test_declaring_a_choice_loads_neither_torch_nor_optuna():
    code = "import sys, edgekit; edgekit.choice('a', [1]); print({'torch', 'optuna', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
