"""A local cloud on a free port, and an image whose node records how it was started and waits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from harness.networks import ClaimedNet, claim_net
from harness.ports import free_port
from mesaform.common import proc
from mesaform.localcloud import daemon, processes
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.operator_credentials import read_credentials

REGION = "us-east-1"
SIGNED_V4 = {"s3": "s3v4"}
"""botocore presigns for S3 with version 2 by default, which S3 no longer accepts."""
BASE_PARAMETER = "/aws/service/debian/release/12/latest/amd64"
STAND_IN = f"""#!{sys.executable}
import json, os, signal, subprocess, sys, time
folder = os.environ["MESAFORM_MACHINE_DIR"]
task = subprocess.Popen(["sleep", "1000"], start_new_session=True)
# A task that left its parents and its environment behind, as a badly behaved one may.
subprocess.run(["sh", "-c", "env -i sleep 1000 &"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: (print("stopped in order", flush=True), os._exit(0)))
signal.signal(signal.SIGUSR1, lambda *_: (print("shut down from inside", flush=True), os._exit(0)))
scratch = os.path.join(folder, ".facts")
with open(scratch, "w") as out:
    facts = {{"argv": sys.argv, "env": dict(os.environ), "pid": os.getpid(), "task": task.pid}}
    json.dump({{**facts, "cwd": os.getcwd()}}, out)
os.replace(scratch, os.path.join(folder, "facts.json"))
print("node is up", flush=True)
while True:
    time.sleep(0.1)
"""


def eventually(ask: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    """Ask until the answer is true; the answer."""
    until = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.03)
    return answer


@dataclass
class Cloud:
    """A running local cloud and what tests say about it."""

    root: Path
    url: str
    pid: int
    cidr: str
    claim: ClaimedNet | None = None
    _clients: dict[str, Any] = field(default_factory=dict)
    _network: tuple[str, dict[str, str], str] | None = None
    _image: str = ""

    def client(self, service: Any) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                endpoint_url=self.url,
                region_name=REGION,
                **operator_key(self.root),
                config=Config(
                    retries={"total_max_attempts": 1}, signature_version=SIGNED_V4.get(service)
                ),
            )
        return self._clients[service]

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    @property
    def base_image(self) -> str:
        return self.client("ssm").get_parameter(Name=BASE_PARAMETER)["Parameter"]["Value"]

    def network(self) -> tuple[str, dict[str, str], str]:
        """A VPC: its id, a subnet a zone, a security group."""
        if self._network is None:
            vpc = self.ec2.create_vpc(CidrBlock=self.cidr)["Vpc"]["VpcId"]
            octets = ".".join(self.cidr.split(".")[:2])
            subnets = {
                f"{REGION}{letter}": self.ec2.create_subnet(
                    VpcId=vpc,
                    CidrBlock=f"{octets}.{index * 32}.0/19",
                    AvailabilityZone=f"{REGION}{letter}",
                )["Subnet"]["SubnetId"]
                for index, letter in enumerate("abc")
            }
            group = self.ec2.create_security_group(
                VpcId=vpc, GroupName="members", Description="members"
            )["GroupId"]
            self._network = (vpc, subnets, group)
        return self._network

    def address(self, rest: str) -> str:
        """An address of its network, such as `127.201.0.20` for `0.20`."""
        return ".".join([*self.cidr.split(".")[:2], rest])

    def subnet(self, zone: str = f"{REGION}a") -> str:
        return self.network()[1][zone]

    def launch(self, image: str | None = None, user_data: str = "", **request: Any) -> str:
        """RunInstances of one; its id."""
        arguments = {
            "ImageId": image or self.base_image,
            "InstanceType": "m5.large",
            "MinCount": 1,
            "MaxCount": 1,
            "SubnetId": self.subnet(),
            **request,
        }
        if user_data:
            arguments["UserData"] = user_data
        return self.ec2.run_instances(
            **{key: value for key, value in arguments.items() if value is not None}
        )["Instances"][0]["InstanceId"]

    def describe(self, instance_id: str) -> dict[str, Any]:
        return self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0][
            "Instances"
        ][0]

    def state(self, instance_id: str) -> str:
        return self.describe(instance_id)["State"]["Name"]

    def wait_state(self, instance_id: str, state: str, timeout_s: float = 60.0) -> dict[str, Any]:
        final = {"terminated"} - {state}

        def has_state() -> bool:
            current = self.state(instance_id)
            assert current not in final, (
                f"{instance_id} is {current}, never {state}: "
                f"{self.describe(instance_id)['StateReason']}"
            )
            return current == state

        eventually(has_state, f"{instance_id} is {state}", timeout_s)
        return self.describe(instance_id)

    def node_facts(self, instance_id: str) -> dict[str, Any]:
        """What the stand-in node of a machine recorded."""
        path = self.machine_dir(instance_id) / "facts.json"
        eventually(path.exists, f"the node of {instance_id} is up")
        return json.loads(path.read_text())

    def machine_dir(self, instance_id: str) -> Path:
        return self.root / "machines" / instance_id

    def console(self, instance_id: str) -> str:
        return self.ec2.get_console_output(InstanceId=instance_id).get("Output", "")

    def image(self) -> str:
        """An image with the stand-in node inside, baked the way the product bakes."""
        if not self._image:
            builder = self.launch(
                user_data=cloud_config({"/opt/mesaform/venv/bin/python": STAND_IN}, [])
            )
            eventually(
                lambda: "cloud-init: finished" in self.console(builder), "the builder is done"
            )
            self._image = self.ec2.create_image(InstanceId=builder, Name=f"stand-in-{builder}")[
                "ImageId"
            ]
            eventually(lambda: self.image_state(self._image) == "available", "the image is made")
            self.ec2.terminate_instances(InstanceIds=[builder])
        return self._image

    def image_state(self, image: str) -> str:
        return self.ec2.describe_images(ImageIds=[image])["Images"][0]["State"]

    def end_machines(self) -> None:
        """Terminate every instance, and wait until its processes have ended."""
        alive = {
            "Name": "instance-state-name",
            "Values": ["pending", "running", "stopping", "stopped"],
        }
        listed = self.ec2.describe_instances(Filters=[alive])["Reservations"]
        ids = [each["InstanceId"] for item in listed for each in item["Instances"]]
        if ids:
            self.ec2.terminate_instances(InstanceIds=ids)
        eventually(lambda: not processes_of(self.root), "no process of a machine is left")

    def fault(self, **fault: Any) -> str:
        answer = daemon.ask(self.root, "faults", method="POST", body=fault)
        assert answer is not None
        return str(answer["id"])

    def clear_faults(self) -> None:
        daemon.ask(self.root, "faults", method="DELETE")

    def child(self, name: str) -> int:
        """The pid of the daemon's endpoint or hypervisor."""
        for line in reversed((self.root / "log" / "daemon.log").read_text().splitlines()):
            record = json.loads(line)
            if record["event"] == "child.started" and record["name"] == name:
                return int(record["pid"])
        raise AssertionError(f"no {name} was started")


def operator_key(root: Path) -> dict[str, Any]:
    """The operator's AWS key of the local cloud in this folder, as arguments of boto3."""
    credentials = read_credentials(Layout(root))
    return {
        "aws_access_key_id": credentials.access_key_id,
        "aws_secret_access_key": credentials.secret_access_key,
    }


def cloud_config(files: dict[str, str], commands: list[Any]) -> str:
    written = [
        {"path": path, "content": content, "permissions": "0755"} for path, content in files.items()
    ]
    return "#cloud-config\n" + json.dumps({"write_files": written, "runcmd": commands})


def running(pids: Iterable[int]) -> set[int]:
    """The processes among these that have not ended."""
    alive = {pid: proc.read_process(pid) for pid in pids}
    return {pid for pid, process in alive.items() if process and not process.has_ended}


def processes_of(root: Path) -> set[int]:
    """Every process of every machine below the state folder."""
    names = {path.name for path in (root / "machines").iterdir()}
    return {
        pid for owner, pids in processes.Census().take().items() if owner in names for pid in pids
    }


def start_cloud(root: Path, cidr: str = "") -> Cloud:
    """Start a local cloud. Without `cidr` it gets a network that no other run on this host uses."""
    network = None if cidr else claim_net()
    running = daemon.start(root, port=free_port("127.0.0.1"))
    return Cloud(root, running.url, running.pid, network.cidr if network else cidr, network)


def stop_cloud(cloud: Cloud) -> None:
    """Stop it and hold it to its promise: no process is left."""
    children = {cloud.pid, cloud.child("endpoint"), cloud.child("hypervisor")}
    daemon.stop(cloud.root)
    if cloud.claim is not None:
        cloud.claim.release()
    assert not running(children)
    assert not processes_of(cloud.root)


@pytest.fixture(scope="session")
def _shared_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = start_cloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    stop_cloud(cloud)


@pytest.fixture(scope="module")
def cloud(_shared_cloud: Cloud) -> Iterator[Cloud]:
    """The local cloud that most modules share: its start takes seconds of processor time.

    A module's machines end with it. A module that stops its cloud, or leaves it in any state, has a
    fixture of its own.
    """
    yield _shared_cloud
    _shared_cloud.clear_faults()
    _shared_cloud.end_machines()


@pytest.fixture(autouse=True)
def _no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cloud" in request.fixturenames:
        request.getfixturevalue("cloud").clear_faults()
