"""Secrets of masters, proofs of agents and users of tasks, in what a machine's services get."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest

from mesaform.node import roles
from mesaform.node.model import Desired, Hardware, Identity, Programs
from mesaform.topology.instance_identity import SignedIdentity
from mesaform.topology.user_data import NODE_DOCUMENT_VERSION, NodeDocument, ZooKeeperMember

ADDRESSES = ("10.0.0.10", "10.0.32.10", "10.0.64.10")
SECRET = "c1" * 32
DIR = PurePosixPath("/var/lib/mesaform")
PROGRAMS = Programs(python="/venv/bin/python", zookeeper_classpath=("/usr/share/zookeeper.jar",))
PROOF = SignedIdentity('{"instanceId": "i-1"}', "c2lnbmF0dXJl")


def a_machine(role: Any, **changes: object) -> Desired:
    members = tuple(ZooKeeperMember(number, ip) for number, ip in enumerate(ADDRESSES, 1))
    document = NodeDocument(
        NODE_DOCUMENT_VERSION, "demo", role, "eu-west-1", "embedded", members, "abc"
    )
    document = msgspec.structs.replace(document, **changes)
    identity = Identity("i-1", "m5.large", "eu-west-1a", ADDRESSES[0], "spot", "4711", PROOF)
    return roles.desired(document, identity, Hardware(4, 16384), PROGRAMS, DIR)


def environment(machine: Desired, name: str) -> dict[str, str]:
    return dict(next(item.env for item in machine.services if item.name == name))


def files(machine: Desired) -> dict[str, str]:
    return {file.path.name: file.text for file in machine.files if file.is_secret}


def test_a_masters_programs_read_their_zookeeper_login_from_files_and_not_from_variables() -> None:
    master = a_machine("master", secret=SECRET)
    text = files(master)["zk-marathon"]
    assert text.startswith("zk://mesaform:")
    assert text.endswith("@10.0.0.10:2181,10.0.32.10:2181,10.0.64.10:2181/marathon")
    assert environment(master, "services")["MARATHON_ZK"] == f"file://{DIR}/secrets/zk-marathon"
    password = text.removeprefix("zk://mesaform:").partition("@")[0]
    variables = [value for service in master.services for value in service.env.values()]
    arguments = [text for service in master.services for text in service.argv]
    assert not [text for text in (*variables, *arguments) if password in text or SECRET in text]


def test_every_file_with_a_secret_is_for_root_alone() -> None:
    master = a_machine("master", secret=SECRET)
    hidden = set(files(master))
    assert hidden >= {"zk-mesos", "zk-marathon", "zk-mesaform-autoscaler", "credentials.json"}
    assert "zoo.cfg" in hidden  # the superuser's digest
    assert "superDigest=super:" in files(master)["zoo.cfg"]


def test_each_framework_of_the_masters_has_a_secret_of_its_own() -> None:
    known = msgspec.json.decode(files(a_machine("master", secret=SECRET))["credentials.json"])
    secrets = {item["principal"]: item["secret"] for item in known["credentials"]}
    assert set(secrets) == {"mesaform-services", "mesaform-autoscaler"}
    assert len(set(secrets.values())) == 2
    master = a_machine("master", secret=SECRET)
    services = environment(master, "services")
    assert services["MARATHON_MESOS_AUTHENTICATION_PRINCIPAL"] == "mesaform-services"
    own = PurePosixPath(services["MARATHON_MESOS_AUTHENTICATION_SECRET_FILE"])
    assert files(master)[own.name] == secrets["mesaform-services"]


def test_another_cluster_has_other_secrets() -> None:
    mine, other = a_machine("master", secret=SECRET), a_machine("master", secret="d2" * 32)
    assert not set(files(mine).values()) & set(files(other).values())


def test_an_agent_gets_its_proof_and_none_of_the_masters_secrets() -> None:
    agent = a_machine("agent", secret=SECRET)
    assert set(files(agent)) == {"instance-identity.json"}
    assert msgspec.json.decode(files(agent)["instance-identity.json"], type=SignedIdentity) == PROOF
    assert SECRET not in repr(agent)
    where = environment(agent, "engine-agent")["MESAFORM_INSTANCE_IDENTITY"]
    assert where == f"{DIR}/secrets/instance-identity.json"


def test_a_master_verifies_instances_of_its_own_account_and_region() -> None:
    master = environment(a_machine("master", secret=SECRET), "engine-master")
    assert master["MESAFORM_IDENTITY_ACCOUNT"] == "4711"
    assert master["MESAFORM_IDENTITY_REGION"] == "eu-west-1"


@pytest.mark.parametrize(("allowed", "text"), [(False, "0"), (True, "1")])
def test_tasks_run_as_the_clusters_user_and_as_root_only_when_allowed(
    allowed: bool, text: str
) -> None:
    agent = a_machine("agent", task_user="worker", allow_root_tasks=allowed)
    assert environment(agent, "engine-agent")["MESAFORM_TASK_USER"] == "worker"
    assert environment(agent, "engine-agent")["MESAFORM_ALLOW_ROOT_TASKS"] == text
    master = environment(a_machine("master", allow_root_tasks=allowed), "engine-master")
    assert ("MESOS_ACLS" in master) is not allowed


def test_a_machine_without_a_signed_identity_starts_without_a_proof() -> None:
    machine = a_machine("agent")
    identity = Identity("i-1", "m5.large", "eu-west-1a", ADDRESSES[0], "spot")
    assert replace(identity, proof=PROOF) != identity
    members = tuple(ZooKeeperMember(number, ip) for number, ip in enumerate(ADDRESSES, 1))
    document = NodeDocument(
        NODE_DOCUMENT_VERSION, "demo", "agent", "eu-west-1", "embedded", members, "abc"
    )
    plain = roles.desired(document, identity, Hardware(4, 16384), PROGRAMS, DIR)
    assert not files(plain)
    assert "MESAFORM_INSTANCE_IDENTITY" not in environment(plain, "engine-agent")
    assert files(machine)
