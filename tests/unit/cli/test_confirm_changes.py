"""What `mesaform up` shows before it changes anything, and when it asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from mesaform.aws.ports import Machine, MachineState
from mesaform.aws.pricing.cluster_cost import ClusterCost, CostItem, CostKind
from mesaform.aws.pricing.prices import Prices
from mesaform.cli import confirm_changes as module
from mesaform.cli.change_costs import CostChange, cost_change
from mesaform.cli.change_run import ChangeRequest, require_allowed
from mesaform.cli.change_view import WIDTH, ChangeView
from mesaform.cli.confirm_changes import Tasks, confirm_changes, needs_confirmation
from mesaform.cli.context import Context
from mesaform.common.errors import BadInput, Exit
from mesaform.config.schema import ClusterSpec, Network
from mesaform.provision.machine_changes import MachineChange, ResourceCounts
from mesaform.provision.preview import Preview

UP = ChangeRequest("mesaform up")
MASTER = MachineChange("i-1", "master-1", "master", "replace", ("ami",))
PREVIEW = Preview((MASTER,), counts={"masters": ResourceCounts(replaced=1)})


def costing(usd_per_hour: float) -> ClusterCost:
    return ClusterCost((CostItem(CostKind.INSTANCES, "machines", usd_per_hour),))


COSTS = CostChange(costing(1.0), costing(1.0))


def agent(identity: str = "i-2", action: str = "destroy") -> MachineChange:
    return MachineChange(identity, "default-2", "agent", action)  # type: ignore[arg-type]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    spec = ClusterSpec(name="a", network=Network(cidr="127.60.0.0/16"))
    monkeypatch.setattr(
        module,
        "view_changes",
        lambda context, preview, tasks: ChangeView("a", preview, tasks, COSTS),
    )
    return Context(spec, tmp_path / "cluster.yaml", tmp_path)


class Terminal:
    def __init__(self, is_one: bool = True) -> None:
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


def test_without_a_terminal_it_stops_with_exit_2_and_names_the_flag(context, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal(is_one=False))
    with pytest.raises(BadInput, match="master-1") as caught:
        confirm_changes(context, PREVIEW, UP)
    assert caught.value.exit_code == Exit.BAD_INPUT
    assert "mesaform up --yes" in caught.value.fix


def test_yes_and_no_changes_ask_nothing(context):
    confirm_changes(context, PREVIEW, ChangeRequest("mesaform up", yes=True))
    confirm_changes(context, Preview(is_synthesized=True), UP)


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_answer_decides(context, monkeypatch, answer):
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: answer)
    if answer:
        confirm_changes(context, PREVIEW, UP)
    else:
        with pytest.raises(typer.Exit):
            confirm_changes(context, PREVIEW, UP)


def test_a_dry_run_prints_the_changes_as_json_and_asks_nothing(context, capsys):
    confirm_changes(context, PREVIEW, ChangeRequest("mesaform up", dry_run=True, as_json=True))
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert changes["machines"][0]["name"] == "master-1"
    assert changes["resources"]["total"]["replaced"] == 1
    assert changes["cost"]["before"]["usd_per_month"] == 730.0


ADDED = Preview(
    (MachineChange("", "default-3", "agent", "add"),), counts={"agents": ResourceCounts(1)}
)


@pytest.mark.parametrize(
    ("preview", "tasks", "target", "expected"),
    [
        (Preview(), {}, "aws", False),
        (ADDED, {}, "local", False),
        (ADDED, {}, "aws", True),
        (Preview((agent(),)), {}, "local", False),
        (Preview((agent(),)), {"i-2": [], "i-3": ["a"]}, "local", False),
        (Preview((agent(),)), {"i-2": ["a"]}, "local", True),
        (Preview((agent(),)), None, "local", True),
        (PREVIEW, {}, "local", True),
        (Preview((), ("masters",)), {}, "local", True),
    ],
)
def test_on_aws_every_change_is_asked_about_locally_what_disturbs_somebody(
    preview: Preview, tasks: Tasks | None, target: str, expected: bool
):
    assert needs_confirmation(preview, tasks, target) is expected


def test_masters_go_out_of_service_only_with_the_flag():
    with pytest.raises(BadInput, match=r"replace master-1 \(i-1\) because of ami") as caught:
        require_allowed(PREVIEW, UP)
    assert "mesaform up --upgrade" in caught.value.fix
    assert caught.value.exit_code == Exit.BAD_INPUT
    require_allowed(PREVIEW, ChangeRequest("mesaform up", may_change_masters=True))
    missing = Preview((MachineChange("", "master-2", "master", "add"),))
    require_allowed(missing, UP)


def test_a_role_that_cannot_be_planned_is_not_upgraded():
    unplanned = Preview((), ("agents",))
    with pytest.raises(BadInput, match="agents cannot be planned"):
        require_allowed(unplanned, ChangeRequest("mesaform upgrade agents", only_role="agent"))


def machine(identity: str, instance_type: str, state: MachineState = "running") -> Machine:
    tags = {"mesaform:role": "agent", "mesaform:pool": "default"}
    return Machine(
        identity,
        instance_type,
        "us-east-1a",
        "on-demand",
        state,
        "",
        "",
        0.0,
        tags,
    )


def instances_usd(cost: ClusterCost) -> float:
    return next(item.usd_per_hour for item in cost.items if item.kind is CostKind.INSTANCES)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (MachineChange("", "b", "agent", "add", type_after="m5.large"), 0.192),
        (MachineChange("i-1", "a", "agent", "destroy", type_before="m5.large"), 0.0),
        (MachineChange("i-1", "a", "agent", "replace", type_after="m5.large"), 0.096),
        (MachineChange("i-1", "a", "agent", "stop and start", type_after="m5.xlarge"), 0.192),
    ],
)
def test_the_cost_after_counts_machines_that_come_go_and_change_their_type(
    change: MachineChange, expected: float
):
    spec = ClusterSpec(name="a", network=Network(cidr="127.60.0.0/16"))
    machines = [machine("i-1", "m5.large"), machine("i-2", "m5.large", "terminated")]
    costs = cost_change(spec, machines, [change], Prices("us-east-1"))
    assert instances_usd(costs.before) == pytest.approx(0.096)
    after = instances_usd(costs.after) if costs.after.items else 0.0
    assert after == pytest.approx(expected)


def test_a_type_without_a_price_is_named():
    spec = ClusterSpec(name="a", network=Network(cidr="127.60.0.0/16"))
    unknown = MachineChange("", "b", "agent", "add", type_after="zz9.large")
    assert cost_change(spec, [], [unknown], Prices("us-east-1")).unpriced == ("zz9.large",)


def test_what_is_shown_names_machines_reasons_tasks_counts_and_costs_in_80_columns():
    changes = (
        MachineChange(
            "i-0123456789abcdef0",
            "mesaform-production-master-1",
            "master",
            "replace",
            ("ami", "user_data"),
            type_before="t3.medium",
            type_after="t3.medium",
        ),
        MachineChange(
            "i-1123456789abcdef0",
            "mesaform-production-master-2",
            "master",
            "stop and start",
            ("instance_type",),
            type_before="t3.medium",
            type_after="t3.large",
        ),
        MachineChange("i-2123456789abcdef0", "mesaform-production-default-2", "agent", "destroy"),
    )
    preview = Preview(
        changes, ("agents",), counts={"masters": ResourceCounts(1, 2, 1, 1)}, outdated=(MASTER,)
    )
    names = [f"web.instance-{n}-1a2b3c4d-44e7-4fbb-ad3e-d4cfaf02ea3f" for n in range(9)]
    tasks = {"i-2123456789abcdef0": names}
    lines = ChangeView(
        "production (account 1, aws, us-east-1)",
        preview,
        tasks,
        CostChange(costing(0.3168), costing(0.4)),
    ).lines()
    text = " ".join(" ".join(lines).split())
    assert "because of ami, user_data" in text
    assert "(t3.medium to t3.large)" in text
    assert f"9 tasks move: {names[0]}, {names[1]}" in text, "a name stays whole"
    assert "and 3 more" in text
    assert "resources: 1 to add, 2 to change, 1 to replace, 1 to destroy" in text
    assert "$0.3168 an hour before, $0.4000 after" in text
    assert "$231.26 a month before, $292.00 after" in text
    assert "1 master runs an older image or older settings" in text
    assert "    mesaform upgrade masters" in lines, "a command that can be copied"
    assert "masters change one at a time" in text
    assert "agents are drained" in text
    assert max(map(len, lines)) <= WIDTH


def test_where_no_master_answers_the_tasks_are_said_to_be_unknown():
    lines = ChangeView("a", Preview((agent(),)), None, COSTS).lines()
    assert any("tasks are not known" in line for line in lines)
    assert ChangeView("a", Preview(), {}, COSTS).lines() == ["a: nothing to change"]


def test_agents_of_the_autoscaler_that_are_replaced_are_shown_with_their_tasks_and_asked_about():
    change = MachineChange("i-5", "default (autoscaler)", "agent", "replace", ("launch template",))
    preview = Preview(autoscaled=(change,))
    assert not preview.is_empty
    assert needs_confirmation(preview, {"i-5": ["web.1"]}, "local")
    assert not needs_confirmation(preview, {}, "local")
    lines = ChangeView("a", preview, {"i-5": ["web.1"]}, COSTS).lines()
    assert lines[1].split() == ["replace", "default", "(autoscaler)", "i-5"]
    assert "1 task moves: web.1" in lines[3]
    assert "  agents are drained before they change" in lines
