"""kill -9 of any program loses neither the account nor a machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from mesaform.common.errors import Busy
from mesaform.localcloud import daemon, processes
from mesaform.localcloud.layout import METADATA_PORT
from tests.integration.localcloud.conftest import (
    Cloud,
    eventually,
    processes_of,
    running,
    start_cloud,
    stop_cloud,
)

pytestmark = pytest.mark.slow
POLICY = (
    '{"Version":"2012-10-17","Statement":'
    '[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}'
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path_factory.mktemp("crashes"))
    yield cloud
    stop_cloud(cloud)


def occupied(port: int) -> socket.socket:
    """A listening socket; the threads of a killed endpoint may have the port for a moment."""
    sockets: list[socket.socket] = []

    def bind() -> bool:
        with contextlib.suppress(OSError):
            sockets.append(socket.create_server(("127.0.0.1", port)))
        return bool(sockets)

    eventually(bind, f"port {port} is free")
    return sockets[0]


def kill_child(cloud: Cloud, name: str) -> None:
    before = cloud.child(name)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: cloud.child(name) != before, f"the {name} is started again")


def test_a_killed_endpoint_restarts_with_the_whole_account_and_no_machine_is_disturbed(
    cloud: Cloud,
) -> None:
    instance = cloud.launch(
        cloud.image(),
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    cloud.wait_state(instance, "running")
    before = cloud.node_facts(instance)
    s3, ssm, iam = cloud.client("s3"), cloud.client("ssm"), cloud.client("iam")
    s3.create_bucket(Bucket="mesaform-test")
    s3.put_object(Bucket="mesaform-test", Key="small", Body=b"x")
    s3.put_object(Bucket="mesaform-test", Key="big", Body=b"y" * 3_000_000, Metadata={"k": "v"})
    s3.put_object(Bucket="mesaform-test", Key="gone", Body=b"z" * 100_000)
    s3.delete_object(Bucket="mesaform-test", Key="gone")
    ssm.put_parameter(Name="/mesaform/test/spec", Value="{}", Type="String")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument="{}")
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=POLICY)
    encrypted = cloud.launch(
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "Encrypted": True}}
        ],
        ClientToken="crash",
    )

    kill_child(cloud, "endpoint")

    assert cloud.describe(instance)["Tags"] == [{"Key": "a", "Value": "b"}]
    assert (
        cloud.launch(
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 9, "Encrypted": True}}
            ],
            ClientToken="crash",
        )
        == encrypted
    )
    assert running([before["pid"]])
    assert cloud.state(instance) == "running"
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="mesaform-test")["Contents"]] == [
        "big",
        "small",
    ]
    big = s3.get_object(Bucket="mesaform-test", Key="big")
    assert (big["Body"].read(), big["Metadata"]) == (b"y" * 3_000_000, {"k": "v"})
    assert ssm.get_parameter(Name="/mesaform/test/spec")["Parameter"]["Value"] == "{}"
    assert iam.list_role_policies(RoleName="r")["PolicyNames"] == ["p"]
    assert daemon.status(cloud.root)["not_saved"] == {}


def test_calls_during_the_endpoints_restart_wait_instead_of_being_refused(cloud: Cloud) -> None:
    os.kill(cloud.child("endpoint"), signal.SIGKILL)
    with pytest.raises(urllib.error.HTTPError, match="403"):  # an answer, not a refused connection
        urllib.request.urlopen(f"{cloud.url}/_mesaform/health", timeout=60)
    assert (daemon.ask(cloud.root, "health") or {})["ok"]


def test_a_termination_just_before_the_crash_is_executed_after_it(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    facts = cloud.node_facts(instance)
    cloud.wait_state(instance, "running")
    os.kill(cloud.child("hypervisor"), signal.SIGSTOP)
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    kill_child(cloud, "endpoint")
    kill_child(cloud, "hypervisor")
    cloud.wait_state(instance, "terminated")
    assert not running([facts["pid"]])
    assert instance not in processes.Census().take()


def test_a_restarted_hypervisor_adopts_its_machines_and_boots_none_twice(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    cloud.wait_state(instance, "running")
    before = cloud.node_facts(instance)
    kill_child(cloud, "hypervisor")
    other = cloud.launch(cloud.image())
    cloud.wait_state(other, "running")
    assert cloud.node_facts(instance)["pid"] == before["pid"]
    assert cloud.console(instance).count("node is up") == 1
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "terminated")
    assert instance not in processes.Census().take()


def test_an_adopted_machine_still_has_its_metadata_service(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    address = cloud.wait_state(instance, "running")["PrivateIpAddress"]
    kill_child(cloud, "hypervisor")

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((address, METADATA_PORT)) == 0

    eventually(answers, f"{address}:{METADATA_PORT} answers")
    cloud.ec2.terminate_instances(InstanceIds=[instance])
    cloud.wait_state(instance, "terminated")
    assert not answers()


def test_the_end_of_an_adopted_machine_is_reported(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    cloud.wait_state(instance, "running")
    kill_child(cloud, "hypervisor")
    os.kill(cloud.node_facts(instance)["pid"], signal.SIGKILL)
    cloud.wait_state(instance, "terminated")


def test_faults_survive_a_crash(cloud: Cloud) -> None:
    cloud.fault(kind="capacity", type="m5.large")
    kill_child(cloud, "endpoint")
    with pytest.raises(cloud.ec2.exceptions.ClientError, match="InsufficientInstanceCapacity"):
        cloud.launch()


def test_the_programs_of_a_killed_next_daemonend_and_the_next_start_adopts_the_machines(
    cloud: Cloud,
) -> None:
    instance = cloud.launch(cloud.image())
    cloud.wait_state(instance, "running")
    before = cloud.node_facts(instance)
    children = {cloud.child("endpoint"), cloud.child("hypervisor")}
    os.kill(cloud.pid, signal.SIGKILL)
    eventually(lambda: not running(children), "its programs end")
    assert daemon.status(cloud.root)["running"] is False
    next_daemon = daemon.start(cloud.root, port=int(cloud.url.rsplit(":", 1)[1]))
    assert next_daemon.started
    cloud.pid = next_daemon.pid
    assert cloud.state(instance) == "running"
    assert cloud.node_facts(instance)["pid"] == before["pid"]
    assert daemon.status(cloud.root)["running"] is True


def test_after_a_stop_and_a_start_the_machines_that_were_running_boot_again(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    cloud.wait_state(instance, "running")
    before = cloud.node_facts(instance)
    daemon.stop(cloud.root)
    assert not processes_of(cloud.root)
    (cloud.machine_dir(instance) / "facts.json").unlink()
    cloud.pid = daemon.start(cloud.root, port=int(cloud.url.rsplit(":", 1)[1])).pid
    assert cloud.node_facts(instance)["pid"] != before["pid"]
    assert cloud.state(instance) == "running"


def test_stop_ends_machines_whose_daemon_was_killed(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    facts = cloud.node_facts(instance)
    os.kill(cloud.pid, signal.SIGKILL)
    eventually(lambda: not daemon.status(cloud.root)["running"], "the daemon is gone")
    assert daemon.stop(cloud.root) is True
    assert not processes_of(cloud.root)
    assert not running([facts["pid"], facts["task"]])
    cloud.pid = daemon.start(cloud.root, port=int(cloud.url.rsplit(":", 1)[1])).pid


def test_machines_that_outlived_their_daemon_keep_its_port(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    cloud.wait_state(instance, "running")
    port = int(cloud.url.rsplit(":", 1)[1])
    children = {cloud.child("endpoint"), cloud.child("hypervisor")}
    os.kill(cloud.pid, signal.SIGKILL)
    eventually(lambda: not running(children), "its programs end")
    with occupied(port), pytest.raises(Busy, match=str(port)):
        daemon.start(cloud.root)
    cloud.pid = daemon.start(cloud.root).pid
    assert cloud.state(instance) == "running"
