"""The agent's settings from MESOS_* variables."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.common.resources import Resources
from mesaform.engine.agent.config import (
    Config,
    machine_resources,
    parse_attributes,
    parse_resources,
)


def environment(tmp_path, **more: str) -> dict[str, str]:
    return {
        "MESOS_MASTER": "zk://127.0.0.1:2181/mesos",
        "MESOS_IP": "127.61.0.5",
        "MESOS_WORK_DIR": str(tmp_path),
        **more,
    }


def test_everything_is_read(tmp_path):
    config = Config.from_environment(
        environment(
            tmp_path,
            MESOS_RESOURCES="cpus:4;mem:15360;disk:35840;ports:[31000-32000]",
            MESOS_ATTRIBUTES="zone:us-east-1a;rank:2;span:[1-5]",
            MESOS_HOSTNAME="a1",
            HOME="/home/someone",
            MESAFORM_LINK_PORT="5999",
        )
    )
    assert config.resources == Resources.of(
        cpus=4, mem_mib=15360, disk_mib=35840, ports=[(31000, 32000)]
    )
    assert (config.hostname, config.port, config.link_port) == ("a1", 5051, 5999)
    assert [(attribute.name, attribute.type) for attribute in config.info.attributes] == [
        ("zone", "TEXT"),
        ("rank", "SCALAR"),
        ("span", "RANGES"),
    ]
    assert config.task_environment["HOME"] == "/home/someone"
    assert not [
        name for name in config.task_environment if name.startswith(("MESOS_", "MESAFORM_LINK"))
    ]


def test_a_machines_own_resources_are_taken_when_none_are_given(tmp_path):
    assert Config.from_environment(environment(tmp_path)).resources == machine_resources(tmp_path)
    assert machine_resources(tmp_path).port_count == 1001


@pytest.mark.parametrize("name", ["MESOS_MASTER", "MESOS_WORK_DIR"])
def test_what_is_missing_is_named(tmp_path, name):
    with pytest.raises(BadInput, match=name):
        Config.from_environment(environment(tmp_path) | {name: ""})


def test_a_wrong_port_is_named(tmp_path):
    with pytest.raises(BadInput, match="MESOS_PORT: '50x' is not a port"):
        Config.from_environment(environment(tmp_path, MESOS_PORT="50x"))


@pytest.mark.parametrize(
    "text", ["cpus", "cpus:many", "cpus:-1", "ports:31000", "ports:[9-1]", ":4", "mem:inf"]
)
def test_malformed_resources_are_refused(text):
    with pytest.raises(BadInput, match="MESOS_RESOURCES"):
        parse_resources(text)


def test_an_attributes_value_may_hold_colons():
    (attribute,) = parse_attributes("time:10:30")
    assert attribute.text is not None
    assert attribute.text.value == "10:30"


def test_an_attribute_without_a_value_is_refused():
    with pytest.raises(BadInput, match="MESOS_ATTRIBUTES"):
        parse_attributes("zone:")
