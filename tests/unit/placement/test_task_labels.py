"""Labels of work that say which machines it wants."""

from __future__ import annotations

import pytest

from mesaform.placement.constraints import Constraint
from mesaform.placement.task_labels import read_labels
from mesaform.services.definitions import InvalidApp, parse


@pytest.mark.parametrize(
    ("labels", "constraints"),
    [
        ({"team": "a", "mesaform/config": "2"}, ()),
        ({"mesaform.instance-type": "c5.large"}, (("instance_type", "IS", "c5.large"),)),
        (
            {"mesaform.instance-type": "c5.large, m5.24xlarge"},
            (("instance_type", "LIKE", r"c5\.large|m5\.24xlarge"),),
        ),
        ({"mesaform.capacity-type": "on-demand"}, (("lifecycle", "IS", "on-demand"),)),
        ({"mesaform.architecture": "arm64"}, (("arch", "IS", "arm64"),)),
        ({"mesaform/arch": "arm64"}, (("arch", "IS", "arm64"),)),
        ({"mesaform.max-wait": "10m"}, ()),
    ],
)
def test_a_label_is_a_constraint_on_what_agents_state(
    labels: dict[str, str], constraints: tuple[tuple[str, str, str], ...]
) -> None:
    read = read_labels(labels)
    assert read.constraints == tuple(Constraint(*parts) for parts in constraints)
    assert not read.problems


def test_a_wait_is_read_in_seconds() -> None:
    assert read_labels({"mesaform.max-wait": "1h30m"}).max_wait_s == 5400
    assert read_labels({}).max_wait_s == 0


BAD = [
    ("mesaform.instance-type", ""),
    ("mesaform.instance-type", "large"),
    ("mesaform.instance-type", "c5.large,"),
    ("mesaform.instance-type", "c5.*"),
    ("mesaform.instance-type", ",".join(f"c5.{n}xlarge" for n in range(21))),
    ("mesaform.capacity-type", "Spot"),
    ("mesaform.capacity-type", ""),
    ("mesaform.architecture", "amd64"),
    ("mesaform/arch", "amd64"),
    ("mesaform.max-wait", "10"),
    ("mesaform.max-wait", "-1s"),
    ("mesaform.max-wait", "9" * 400 + "s"),
    ("mesaform.max-wait", "60d"),
    ("mesaform.max-weight", "10m"),
]


@pytest.mark.parametrize(("label", "value"), BAD)
def test_a_bad_value_is_named_and_asks_for_nothing(label: str, value: str) -> None:
    read = read_labels({label: value})
    assert [name for name, _ in read.problems] == [label]
    assert label in read.problem
    assert not read.constraints
    assert not read.max_wait_s


@pytest.mark.parametrize(("label", "value"), BAD)
def test_the_services_refuse_an_app_with_a_bad_value(label: str, value: str) -> None:
    with pytest.raises(InvalidApp) as refused:
        parse({"id": "/web", "cmd": "true", "labels": {label: value}})
    assert f"/labels/{label}" in refused.value.problems


def test_two_labels_that_name_different_architectures_are_a_problem() -> None:
    labels = {"mesaform/arch": "x86_64", "mesaform.architecture": "arm64"}
    assert "mesaform/arch" in read_labels(labels).problem
    assert not read_labels({**labels, "mesaform/arch": "arm64"}).problems
