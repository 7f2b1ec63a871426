"""Services of each role, as docs/architecture.md lists them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest

from mesaform.node import mesos_flags, roles
from mesaform.node.model import Hardware, Identity, MachineFeatures, Programs, Service
from mesaform.topology.user_data import (
    NODE_DOCUMENT_VERSION,
    AccessTerms,
    DataVolume,
    LeaseTerms,
    NodeDocument,
    ZooKeeperMember,
    parse_node_document,
)
from mesaform.topology.zookeeper import AGENT_PURPOSE, derived_secret

MASTERS = ("127.42.0.10", "127.42.32.10", "127.42.64.10")
ENSEMBLE = "127.42.0.10:2181,127.42.32.10:2181,127.42.64.10:2181"
NO_ROOT_TASKS = '{"run_tasks":[{"principals":{"type":"NONE"},"users":{"values":["root"]}}]}'
DOMAIN = '{"fault_domain": {"region": {"name": "eu-west-1"}, "zone": {"name": "us-east-1b"}}}'
DIR = PurePosixPath("/var/lib/mesaform")
PROGRAMS = Programs(
    python="/opt/mesaform/venv/bin/python",
    java="/usr/bin/java",
    zookeeper_classpath=("/usr/share/java/zookeeper.jar",),
)
MASTER = Identity("i-1", "t3.medium", "us-east-1b", MASTERS[1], "on-demand")
AGENT = Identity("i-2", "m5.large", "us-east-1a", "127.42.0.77", "spot")


def document(role: Any = "master", **changes: object) -> NodeDocument:
    members = tuple(ZooKeeperMember(number + 1, address) for number, address in enumerate(MASTERS))
    base = NodeDocument(
        NODE_DOCUMENT_VERSION, "demo", role, "eu-west-1", "embedded", members, "abc"
    )  # type: ignore[arg-type]
    return msgspec.structs.replace(base, **changes)


def services(
    doc: NodeDocument, identity: Identity = MASTER, programs: Programs = PROGRAMS
) -> dict[str, Service]:
    return {
        service.name: service
        for service in roles.desired(doc, identity, Hardware(4, 16384), programs, DIR).services
    }


def mesaform_environment(service: Service) -> dict[str, str]:
    return {
        key: value
        for key, value in service.env.items()
        if key.startswith(("MESOS_", "MESAFORM_", "MARATHON_", "AWS_"))
    }


def test_the_data_of_a_master_are_on_its_volume_and_its_configuration_is_not() -> None:
    volume = DataVolume("vol-1", "d1")
    desired = roles.desired(document(data_volume=volume), MASTER, Hardware(2, 4096), PROGRAMS, DIR)
    files = {str(file.path): file.text for file in desired.files}
    assert files[f"{DIR}/data/zookeeper/data/myid"] == "2\n"
    assert f"dataDir={DIR}/data/zookeeper/data" in files[f"{DIR}/zookeeper/conf/zoo.cfg"]
    engine = services(document(data_volume=volume))["engine-master"]
    assert engine.env["MESOS_WORK_DIR"] == f"{DIR}/data/engine-master"
    assert {str(folder) for folder in desired.private_folders} == {
        f"{DIR}/zookeeper",
        f"{DIR}/data/zookeeper",
        f"{DIR}/data/engine-master",
    }


def test_a_master_runs_zookeeper_first_then_the_engine_the_services_and_the_autoscaler() -> None:
    assert list(services(document())) == ["zookeeper", "engine-master", "services", "autoscaler"]


def test_the_engine_master_gets_its_address_the_ensemble_and_a_quorum_of_two() -> None:
    engine = services(document())["engine-master"]
    assert engine.argv == ("/opt/mesaform/venv/bin/python", "-m", "mesaform.engine", "master")
    assert mesaform_environment(engine) == {
        "MESOS_IP": MASTERS[1],
        "MESOS_PORT": "5050",
        "MESOS_ZK": f"zk://{ENSEMBLE}/mesos",
        "MESOS_QUORUM": "2",
        "MESOS_CLUSTER": "demo",
        "MESOS_HOSTNAME": MASTERS[1],
        "MESOS_WORK_DIR": "/var/lib/mesaform/engine-master",
        "MESAFORM_LINK_PORT": "5052",
        "MESOS_DOMAIN": DOMAIN,
        "MESOS_ACLS": NO_ROOT_TASKS,
    }


def test_services_and_autoscaler_get_the_masters_and_their_election_paths() -> None:
    by_name = services(document())
    assert by_name["services"].argv[1:] == ("-m", "mesaform.services")
    assert mesaform_environment(by_name["services"]) == {
        "MARATHON_MASTER": f"zk://{ENSEMBLE}/mesos",
        "MARATHON_ZK": f"zk://{ENSEMBLE}/marathon",
        "MARATHON_HTTP_ADDRESS": MASTERS[1],
        "MARATHON_HTTP_PORT": "8080",
        "MARATHON_HOSTNAME": MASTERS[1],
        "MARATHON_MESOS_USER": "nobody",
        "MESAFORM_CLUSTER": "demo",
        "MESAFORM_DEPLOYMENT": "",
        "AWS_REGION": "eu-west-1",
    }
    assert by_name["autoscaler"].argv[1:] == ("-m", "mesaform.autoscaler")
    assert mesaform_environment(by_name["autoscaler"]) == {
        "MESAFORM_CLUSTER": "demo",
        "MESAFORM_ZK": f"zk://{ENSEMBLE}/mesaform/autoscaler",
        "MESAFORM_MASTERS": f"zk://{ENSEMBLE}/mesos",
        "MESAFORM_BIND": f"{MASTERS[1]}:9550",
        "AWS_REGION": "eu-west-1",
    }


def test_an_agent_advertises_the_resources_that_the_planner_expects() -> None:
    agent = services(document("agent", pool="default", disk_gib=40), AGENT)["engine-agent"]
    assert agent.argv[1:] == ("-m", "mesaform.engine", "agent")
    assert agent.env["MESOS_RESOURCES"] == "cpus:4;disk:35840;mem:15565;ports:[31000-32000]"
    assert agent.env["MESOS_MASTER"] == f"zk://{ENSEMBLE}/mesos"
    assert (agent.env["MESOS_IP"], agent.env["MESOS_PORT"], agent.env["MESAFORM_LINK_PORT"]) == (
        AGENT.address,
        "5051",
        "5052",
    )


def test_an_agent_of_a_t_type_advertises_its_baseline_unless_its_pool_bursts() -> None:
    machine = replace(AGENT, instance_type="t3.xlarge")
    usual = services(document("agent"), machine)["engine-agent"]
    burst = services(document("agent", has_burst=True), machine)["engine-agent"]
    assert usual.env["MESOS_RESOURCES"].startswith("cpus:1.6;")
    assert burst.env["MESOS_RESOURCES"].startswith("cpus:4;")


def test_every_agent_runs_an_interruption_monitor_with_the_autoscalers_addresses() -> None:
    monitor = services(document("agent"), AGENT)["interruption-monitor"]
    assert monitor.argv[1:] == ("-m", "mesaform.node.interruption_monitor")
    assert monitor.env["MESAFORM_AUTOSCALERS"] == ",".join(f"{address}:9550" for address in MASTERS)
    assert (monitor.env["MESAFORM_MACHINE"], monitor.env["MESAFORM_ADDRESS"]) == (
        AGENT.instance_id,
        AGENT.address,
    )
    assert "interruption-monitor" not in services(document("master"))


def test_only_an_agent_that_the_autoscaler_launched_has_a_lease() -> None:
    assert list(services(document("agent"), AGENT)) == ["engine-agent", "interruption-monitor"]
    assert "lease" not in services(document("master", lease=LeaseTerms(600, 20)))
    lease = services(document("agent", lease=LeaseTerms(600, 20)), AGENT)["lease"]
    assert lease.argv[1:] == ("-m", "mesaform.node.lease_daemon")
    assert lease.controls_node
    assert mesaform_environment(lease) == {
        "MESAFORM_ZK": f"zk://{ENSEMBLE}/mesaform/autoscaler",
        "MESAFORM_MASTERS": f"zk://{ENSEMBLE}/mesos",
        "MESAFORM_AGENT": f"{AGENT.address}:5051",
        "MESAFORM_MACHINE": "i-2",
        "MESAFORM_LEASE_S": "600",
        "MESAFORM_EMPTY_S": "20",
    }


def test_facts_of_the_machine_override_pool_attributes() -> None:
    doc = document("agent", pool="fast", attributes={"rack": "7", "zone": "moon"})
    attributes = services(doc, AGENT)["engine-agent"].env["MESOS_ATTRIBUTES"]
    assert attributes == (
        "rack:7;zone:us-east-1a;arch:x86_64;instance_type:m5.large;pool:fast;lifecycle:spot"
        ";instance_id:i-2"
    )


MESOS = replace(
    PROGRAMS,
    mesos_master="/opt/mesos/sbin/mesos-master",
    mesos_agent="/opt/mesos/sbin/mesos-agent",
    features=MachineFeatures(is_root=True, has_cgroups=True, has_systemd=True, has_docker=True),
)


def mesos_agent(**features: bool) -> dict[str, str]:
    """The environment of an agent of Apache Mesos on a machine that lacks these features."""
    programs = replace(MESOS, features=replace(MESOS.features, **features))
    doc = document("agent", engine="mesos", agent_secret="s")
    return dict(services(doc, AGENT, programs)["engine-agent"].env)


def test_the_embedded_agent_gets_the_unit_of_tasks_where_the_machine_has_one() -> None:
    unit = "/run/mesaform-tasks/groups"
    programs = replace(PROGRAMS, task_unit=unit)
    agent = services(document("agent"), AGENT, programs)["engine-agent"]
    assert agent.env["MESAFORM_TASK_UNIT"] == unit
    elsewhere = services(document("agent"), AGENT)["engine-agent"]
    assert "MESAFORM_TASK_UNIT" not in elsewhere.env


def test_a_master_of_apache_mesos_starts_through_the_program_that_decides_about_its_log() -> None:
    master = services(document(engine="mesos"), programs=MESOS)["engine-master"]
    assert master.argv == (
        PROGRAMS.python,
        "-m",
        "mesaform.node.mesos_log",
        "/opt/mesos/sbin/mesos-master",
    )
    assert master.env["MESOS_QUORUM"] == "2"
    assert master.env["MESOS_REGISTRY"] == "replicated_log"
    assert master.env["MESOS_WORK_DIR"] == str(DIR / "engine-master")
    assert master.env["MESOS_WEBUI_DIR"] == "/opt/mesos/share/mesos/webui"
    assert "MESOS_LOG_AUTO_INITIALIZE" not in master.env


def test_agents_of_apache_mesos_contain_tasks_where_the_machine_allows_it() -> None:
    env = mesos_agent()
    assert env["MESOS_ISOLATION"] == ",".join(mesos_flags.ISOLATION)
    assert env["MESOS_CONTAINERIZERS"] == "docker,mesos"
    assert env["MESOS_IMAGE_PROVIDERS"] == "docker"
    assert env["MESOS_CGROUPS_ENABLE_CFS"] == "true"
    assert env["MESOS_SYSTEMD_ENABLE_SUPPORT"] == "true"
    assert env["MESOS_LAUNCHER"] == "linux"
    assert env["MESOS_RECONFIGURATION_POLICY"] == "additive"
    assert env["MESOS_LAUNCHER_DIR"] == "/opt/mesos/libexec/mesos"


@pytest.mark.parametrize(
    "lack", [{"is_root": False}, {"has_cgroups": False}, {"is_shared": True}], ids=str
)
def test_agents_of_apache_mesos_elsewhere_only_measure_their_tasks(lack: dict[str, bool]) -> None:
    env = mesos_agent(**lack)
    assert env["MESOS_ISOLATION"] == ",".join(mesos_flags.PROCESS_ISOLATION)
    assert env["MESOS_LAUNCHER"] == "posix"
    assert env["MESOS_CONTAINERIZERS"] == "mesos"
    assert env["MESOS_SYSTEMD_ENABLE_SUPPORT"] == "false"
    assert "MESOS_IMAGE_PROVIDERS" not in env
    assert mesos_flags.reduction(replace(MESOS.features, **lack))


def test_agents_of_apache_mesos_log_in_with_the_secret_that_masters_expect() -> None:
    secret = "c" * 64
    own = derived_secret(secret, AGENT_PURPOSE)
    master = roles.desired(
        document(engine="mesos", secret=secret), MASTER, Hardware(4, 16384), MESOS, DIR
    )
    agent = roles.desired(
        document("agent", engine="mesos", agent_secret=own), AGENT, Hardware(4, 16384), MESOS, DIR
    )
    files = {str(file.path): file for file in (*master.files, *agent.files)}
    known = json.loads(files[f"{DIR}/secrets/credentials.json"].text)["credentials"]
    shown = files[f"{DIR}/secrets/mesos-credential.json"]
    assert json.loads(shown.text) in known
    assert shown.is_secret
    env = next(item.env for item in agent.services if item.name == "engine-agent")
    assert env["MESOS_CREDENTIAL"] == f"file://{DIR}/secrets/mesos-credential.json"
    env = next(item.env for item in master.services if item.name == "engine-master")
    assert env["MESOS_AUTHENTICATE_AGENTS"] == "true"
    (allowed, others) = json.loads(env["MESOS_ACLS"])["register_agents"]
    assert allowed["principals"]["values"] == [json.loads(shown.text)["principal"]]
    assert others == {"principals": {"type": "ANY"}, "agents": {"type": "NONE"}}


@pytest.mark.parametrize("allowed", [False, True])
def test_agents_of_apache_mesos_start_no_container_as_root_for_a_task(allowed: bool) -> None:
    agent = document("agent", engine="mesos", allow_root_tasks=allowed)
    desired = roles.desired(agent, AGENT, Hardware(4, 16384), MESOS, DIR)
    env = next(item.env for item in desired.services if item.name == "engine-agent")
    acls = json.loads(env["MESOS_ACLS"])
    nobody = {"type": "NONE"}
    assert acls["launch_standalone_containers"] == [
        {"principals": nobody, "users": {"type": "ANY"}}
    ]
    inside = {"launch_nested_containers_as_user", "launch_nested_container_sessions_as_user"}
    assert (inside <= acls.keys()) is not allowed
    if not allowed:
        assert all(acls[name][0]["users"] == {"values": ["root"]} for name in inside)


def test_an_image_without_apache_mesos_names_the_recipe() -> None:
    with pytest.raises(
        roles.CannotServe, match=r"mesos-agent, which this image lacks.*recipe\.toml"
    ):
        services(document("agent", engine="mesos"), AGENT)


def test_a_master_outside_the_ensemble_is_refused_by_name() -> None:
    with pytest.raises(roles.CannotServe, match=r"127\.42\.0\.77 is not among the ensemble's"):
        services(document(), AGENT)


def test_a_master_without_zookeeper_names_the_package() -> None:
    with pytest.raises(roles.CannotServe, match="apt-get install zookeeper"):
        services(document(), programs=replace(PROGRAMS, zookeeper_classpath=()))


def test_zookeeper_binds_its_own_address_only_and_knows_its_number() -> None:
    files = {
        file.path.name: file.text
        for file in roles.desired(document(), MASTER, Hardware(2, 4096), PROGRAMS, DIR).files
    }
    assert files["myid"] == "2\n"
    lines = files["zoo.cfg"].splitlines()
    assert f"clientPortAddress={MASTERS[1]}" in lines
    assert "quorumListenOnAllIPs=false" in lines
    assert [line for line in lines if line.startswith("server.")] == [
        f"server.{n + 1}={a}:2888:3888" for n, a in enumerate(MASTERS)
    ]


def test_a_document_of_another_recipe_is_refused() -> None:
    roles.check_recipe(document(recipe="abc"), "abc")
    with pytest.raises(
        roles.CannotServe, match="wants an image of recipe abc, this image is of recipe xyz"
    ):
        roles.check_recipe(document(recipe="abc"), "xyz")
    with pytest.raises(roles.CannotServe, match="does not run from a baked image"):
        roles.check_recipe(document(recipe="abc"), "")


def test_a_document_of_another_version_names_both() -> None:
    text = msgspec.json.encode(document(version=9))
    with pytest.raises(ValueError, match="version 9, this image knows 1"):
        parse_node_document(text)


def test_the_http_ports_learn_the_public_address_and_the_names_of_the_cluster_file() -> None:
    public = replace(MASTER, public_address="203.0.113.9")
    named = document(host_names=("mesos.example.com",), jsonp=True)
    for name in ("engine-master", "services", "autoscaler"):
        environment = services(named, public)[name].env
        assert environment["MESAFORM_HTTP_HOSTS"] == "203.0.113.9,mesos.example.com"
        assert environment["MESAFORM_HTTP_JSONP"] == "1"
        assert "MESAFORM_HTTP_HOSTS" not in services(document())[name].env
    agent = services(document("agent", host_names=("mesos.example.com",)), AGENT)["engine-agent"]
    assert agent.env["MESAFORM_HTTP_HOSTS"] == "mesos.example.com"


ACCESS = AccessTerms("/mesaform/demo/access", requires_token=True, authenticates_frameworks=True)


def test_the_programs_of_a_master_find_the_access_document_and_agents_do_not():
    of_master = services(document(access=ACCESS, secret="s" * 64))
    for name in ("engine-master", "services", "autoscaler"):
        env = of_master[name].env
        assert env["MESAFORM_ACCESS_FILE"] == f"{DIR}/secrets/access.json"
        assert env["MESAFORM_ACCESS_REQUIRED"] == "1"
    assert of_master["autoscaler"].env["MESAFORM_ACCESS_PARAMETER"] == ACCESS.parameter
    assert of_master["engine-master"].env["MESOS_AUTHENTICATE_HTTP_FRAMEWORKS"] == "true"
    for service in services(document("agent", access=ACCESS), AGENT).values():
        assert not [name for name in service.env if "ACCESS" in name]


def test_apache_mesos_gets_credentials_and_acls_as_flags():
    """A master of Apache Mesos 1.12 starts with these variables and answers 401 without a login."""
    programs = replace(PROGRAMS, mesos_master="/usr/sbin/mesos-master")
    doc = document(access=ACCESS, secret="s" * 64, engine="mesos")
    env = services(doc, MASTER, programs)["engine-master"].env
    assert env["MESOS_CREDENTIALS"] == f"file://{DIR}/secrets/mesos-credentials.json"
    assert env["MESOS_ACLS"] == f"file://{DIR}/secrets/mesos-acls.json"
    assert env["MESOS_HTTP_FRAMEWORK_AUTHENTICATORS"] == "basic"
    for name in ("HTTP_READWRITE", "HTTP_FRAMEWORKS", "FRAMEWORKS"):
        assert env[f"MESOS_AUTHENTICATE_{name}"] == "true"
