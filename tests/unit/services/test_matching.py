from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.resources import EMPTY, Resources
from mesaform.mesos.messages import Offer, from_wire, ident, to_wire
from mesaform.services.launch import environment, task_id_for, task_info
from mesaform.services.matching import Fit, OpenOffer
from mesaform.services.model import App, Instance, PortDefinition


def an_offer(unreserved: Resources, reserved: Resources = EMPTY) -> OpenOffer:
    resources = to_wire(unreserved, role="*", allocated_to="*") + to_wire(
        reserved, role="prod", allocated_to="*"
    )
    return OpenOffer(
        Offer(
            id=ident("o"),
            framework_id=ident("f"),
            agent_id=ident("a"),
            hostname="h",
            resources=resources,
        )
    )


def an_app(**fields: Any) -> App:
    return App(**{"id": "/web/api", "cmd": "serve", "cpus": 1, "mem": 64, **fields})  # type: ignore[arg-type]


PLENTY = Resources.of(cpus=4, mem_mib=1024, disk_mib=1024, ports=[(31000, 31009)])


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (an_app(cpus=5), "InsufficientCpus"),
        (an_app(mem=2000), "InsufficientMemory"),
        (an_app(disk=2000), "InsufficientDisk"),
        (an_app(gpus=1), "InsufficientGpus"),
        (an_app(port_definitions=[PortDefinition()] * 11), "InsufficientPorts"),
        (
            an_app(port_definitions=[PortDefinition(port=80)], require_ports=True),
            "InsufficientPorts",
        ),
        (an_app(constraints=[["hostname", "UNLIKE", "h"]]), "UnfulfilledConstraint"),
        (an_app(accepted_resource_roles=["other"]), "UnfulfilledRole"),
        (an_app(cpus=5, mem=2000, constraints=[["hostname", "IS", "x"]]), "UnfulfilledConstraint"),
    ],
)
def test_an_offer_is_rejected_for_the_first_reason_of_the_funnel(app: App, reason: str) -> None:
    assert an_offer(PLENTY).examine(app, [], 0) == reason


def test_reserved_resources_are_used_first_and_only_by_apps_that_accept_the_role() -> None:
    offer = an_offer(Resources.of(cpus=2, mem_mib=64), Resources.of(cpus=1.5, mem_mib=32))
    fit = offer.examine(an_app(cpus=2), [], 0)
    assert isinstance(fit, Fit)
    assert fit.taken == {
        "prod": Resources.of(cpus=1.5, mem_mib=32),
        "*": Resources.of(cpus=0.5, mem_mib=32),
    }
    assert (
        offer.examine(an_app(cpus=2, accepted_resource_roles=["prod"]), [], 0) == "InsufficientCpus"
    )
    assert {item.role for item in fit.wire()} == {"prod", "*"}


def test_required_ports_are_fixed_and_others_are_chosen_from_the_offer() -> None:
    exact = an_app(
        port_definitions=[PortDefinition(port=31005), PortDefinition()], require_ports=True
    )
    fit = an_offer(PLENTY).examine(exact, [], 4)
    assert isinstance(fit, Fit)
    assert fit.ports[0] == 31005
    assert fit.ports[1] != 31005
    assert from_wire(fit.wire()).port_count == 2


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 300), st.integers(0, 4), st.integers(0, 2**64)),
        max_size=12,
    ),
    st.floats(0, 6),
    st.floats(0, 3),
)
def test_instances_never_take_more_than_the_offer(
    wanted: list[tuple[float, float, int, int]], cpus: float, reserved: float
) -> None:
    whole = Resources.of(cpus=cpus, mem_mib=512, ports=[(31000, 31003), (31010, 31011)])
    offer = an_offer(whole, Resources.of(cpus=reserved))
    taken = EMPTY
    for app_cpus, mem, ports, seed in wanted:
        app = an_app(cpus=app_cpus, mem=mem, port_definitions=[PortDefinition()] * ports)
        fit = offer.examine(app, [], seed)
        if isinstance(fit, Fit):
            offer.take(fit)
            part = from_wire(fit.wire())
            assert part.milli == app.resources.milli
            assert part.port_count == ports == len(set(fit.ports))
            assert not set(fit.ports) & {
                port for low, high in taken.ports for port in range(low, high + 1)
            }
            taken = taken + part
    assert (whole + Resources.of(cpus=reserved)).contains(taken)
    assert offer.remaining == whole + Resources.of(cpus=reserved) - taken


def test_a_task_has_marathon_s_environment_variables() -> None:
    app = an_app(
        env={"MODE": "x", "HOST": "own-value"},
        labels={"team-name": "red"},
        version="2026-11-21T06:00:00.000Z",
        port_definitions=[PortDefinition(port=10000, name="web"), PortDefinition(port=10001)],
    )
    task_id, ports = task_id_for(app.id, "u"), [31005, 31007]
    instance = Instance(
        task_id=task_id,
        app_id=app.id,
        version="v",
        config_version="v",
        agent_id="a",
        host="h",
        ports=ports,
        staged_at=0,
    )
    env = environment(app, instance)
    assert env["PORT"] == env["PORT0"] == env["PORT_WEB"] == env["PORT_10000"] == "31005"
    assert (env["PORT1"], env["PORTS"]) == ("31007", "31005,31007")
    assert (env["MARATHON_APP_ID"], env["MARATHON_APP_LABEL_TEAM_NAME"], env["MODE"]) == (
        "/web/api",
        "red",
        "x",
    )
    assert env["HOST"] == "own-value", "the app's own variable overrides"
    fit = an_offer(PLENTY).examine(app, [], 0)
    assert isinstance(fit, Fit)
    info = task_info(app, instance, fit)
    assert (info.name, info.task_id.value) == ("api.web", "web_api.instance-u._app.1")
    assert info.command is not None
    assert info.command.shell
    argv = task_info(
        an_app(cmd=None, args=["sleep", "9"]), msgspec.structs.replace(instance, ports=[]), fit
    )
    assert argv.command is not None
    assert (argv.command.shell, argv.command.value, argv.command.arguments) == (
        False,
        "sleep",
        ["sleep", "9"],
    )


def test_an_app_that_pins_no_architecture_is_kept_off_agents_that_require_a_pin() -> None:
    offer = an_offer(PLENTY)
    offer.agent_fields |= {"arch": "arm64", "requires_pin": "arch", "pool": "mixed"}
    pool = [["pool", "CLUSTER", "mixed"]]
    for app, reason in (
        (an_app(), "UnfulfilledConstraint"),
        (an_app(constraints=pool), "UnfulfilledConstraint"),
        (an_app(labels={"mesaform/arch": "x86_64"}), "UnfulfilledConstraint"),
        (an_app(labels={"mesaform/arch": "arm64"}), None),
        (an_app(constraints=[["arch", "CLUSTER", "arm64"]]), None),
    ):
        result = offer.examine(app, [], 0)
        assert (result if isinstance(result, str) else None) == reason
