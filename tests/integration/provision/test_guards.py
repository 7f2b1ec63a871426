"""Guards of `up` and `down` against machines, accounts and runs that are not their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

import msgspec
import pytest

from mesaform import provision
from mesaform.cli.context import Context, open_context
from mesaform.common.errors import Busy, Exit, NotOwned
from mesaform.common.progress import Recorded, Silent
from mesaform.provision.deployment import read_deployment
from mesaform.provision.lock import hold_terraform
from mesaform.topology.user_data import NODE_DOCUMENT_VERSION, NodeDocument, Role
from tests.support.terraform_state import write_state

from .conftest import Aws

pytestmark = pytest.mark.slow
ACCOUNT = "123456789012"
OWNER, SECOND = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


@dataclass
class Cloud:
    """A cluster's resources in the account, created without Terraform."""

    aws: Aws
    name: str

    def tags(self, kind: str, deployment: str, **more: str) -> list[dict]:
        values = {"mesaform:cluster": self.name, **more}
        if deployment:
            values["mesaform:deployment"] = deployment
        return [
            {
                "ResourceType": kind,
                "Tags": [{"Key": key, "Value": value} for key, value in values.items()],
            }
        ]

    def vpc(self, deployment: str) -> tuple[str, str]:
        """A VPC with one subnet; their ids."""
        ec2 = self.aws.client("ec2")
        vpc = ec2.create_vpc(
            CidrBlock="10.99.0.0/16", TagSpecifications=self.tags("vpc", deployment)
        )["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(
            VpcId=vpc, CidrBlock="10.99.0.0/20", TagSpecifications=self.tags("subnet", deployment)
        )["Subnet"]["SubnetId"]
        return vpc, subnet

    def machine(
        self, deployment: str, subnet: str, *, role: str = "master", user_data: str = ""
    ) -> str:
        tags = {"mesaform:role": role, "mesaform:managed-by": "terraform"}
        answer = self.aws.client("ec2").run_instances(
            ImageId=self.aws.bake(),
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.medium",
            SubnetId=subnet,
            UserData=user_data,
            TagSpecifications=self.tags("instance", deployment, **tags),
        )
        return answer["Instances"][0]["InstanceId"]

    def iam_role(self, deployment: str) -> str:
        name = f"mesaform-{self.name}-master"
        self.aws.client("iam").create_role(
            RoleName=name,
            AssumeRolePolicyDocument=TRUST,
            Tags=self.tags("role", deployment)[0]["Tags"],
        )
        return name

    def living(self) -> set[str]:
        return {machine["InstanceId"] for machine in self.aws.instances(self.name)}

    def roles(self) -> set[str]:
        return {
            role["RoleName"]
            for role in self.aws.client("iam").list_roles()["Roles"]
            if role["RoleName"].startswith(f"mesaform-{self.name}-")
        }


@pytest.fixture
def cloud(aws: Aws, place: Context) -> Cloud:
    aws.bake()
    return Cloud(aws, place.spec.name)


def record(place: Context, deployment: str, account: str = ACCOUNT) -> None:
    """The state folder as an earlier `up` left it."""
    place.cluster_dir.mkdir(parents=True, exist_ok=True)
    document = {"deployment_id": deployment, "account_id": account, "region": "us-east-1"}
    (place.cluster_dir / "deployment.json").write_text(json.dumps(document))


def interrupt_run(place: Context, began_at: float) -> None:
    (place.cluster_dir / "unfinished").write_text(f"{began_at:.0f}")


async def refused(place: Context) -> NotOwned:
    with pytest.raises(NotOwned) as caught:
        await provision.deploy(place, Recorded())
    assert caught.value.exit_code == Exit.NOT_OWNED
    return caught.value


async def test_a_second_folder_changes_nothing_of_a_running_cluster(cloud, place, tmp_path):
    """The second `up` of a second clone removed the first one's machines, roles and subnets."""
    vpc, subnet = cloud.vpc(OWNER)
    machines = {cloud.machine(OWNER, subnet) for _ in range(3)}
    role = cloud.iam_role(OWNER)
    write_state(place.cluster_dir, "masters", [("aws_instance", {"id": i}) for i in machines])
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "cluster.yaml").write_text(place.file.read_text())
    clone = open_context(str(folder / "cluster.yaml"))
    own_vpc, _ = cloud.vpc(SECOND)
    write_state(clone.cluster_dir, "network", [("aws_vpc", {"id": own_vpc})])
    record(clone, SECOND)
    interrupt_run(clone, 0)

    error = await refused(clone)

    assert cloud.living() == machines
    assert cloud.roles() == {role}
    vpcs = cloud.aws.client("ec2").describe_vpcs(VpcIds=[vpc, own_vpc])["Vpcs"]
    assert len(vpcs) == 2
    assert all(identity in error.what for identity in (*machines, vpc, ACCOUNT, "us-east-1"))
    assert own_vpc not in error.what
    assert f"mesaform adopt --deployment {OWNER}" in error.fix
    assert "another name" in error.fix
    assert "mesaform down" in error.fix


async def test_the_first_up_of_a_folder_stops_before_it_writes_or_creates_anything(cloud, place):
    _, subnet = cloud.vpc(OWNER)
    machine = cloud.machine(OWNER, subnet)
    error = await refused(place)
    assert machine in error.what
    assert not (place.cluster_dir / "deployment.json").exists()
    assert not list(place.cluster_dir.glob("*.tfstate"))


async def test_living_masters_without_a_state_are_never_cleared_after_an_interrupted_run(
    cloud, place
):
    record(place, OWNER)
    interrupt_run(place, time.time() - 30)
    _, subnet = cloud.vpc(OWNER)
    masters = {cloud.machine(OWNER, subnet) for _ in range(3)}
    role = cloud.iam_role(OWNER)

    error = await refused(place)

    assert cloud.living() == masters
    assert cloud.roles() == {role}
    assert "mesaform adopt" in error.fix


async def test_a_role_without_this_folders_id_is_not_removed(cloud, place):
    record(place, OWNER)
    interrupt_run(place, 0)
    role = cloud.iam_role(SECOND)
    with hold_terraform(place.cluster_dir, "test") as held:
        await provision.prepare(place, Silent(), held)
    assert cloud.roles() == {role}


@pytest.mark.parametrize("content", ["", None, "{"])
async def test_a_damaged_state_beside_living_masters_stops_up(cloud, place, content):
    record(place, OWNER)
    vpc, subnet = cloud.vpc(OWNER)
    masters = {cloud.machine(OWNER, subnet) for _ in range(3)}
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": vpc})])
    state = write_state(
        place.cluster_dir, "masters", [("aws_instance", {"id": i}) for i in masters]
    )
    backup = state.with_name("masters.tfstate.backup")
    backup.write_text(state.read_text())
    if content is None:
        state.unlink()
    else:
        state.write_text(content)
    interrupt_run(place, time.time() + 30)  # the run that found the damage failed

    error = await refused(place)

    assert cloud.living() == masters
    assert "masters.tfstate" in error.what
    assert str(backup) in error.fix


async def test_another_account_stops_up_and_destroy(cloud, place):
    record(place, OWNER, account="999999999999")
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": "vpc-0"})])
    error = await refused(place)
    assert "999999999999" in error.what
    assert ACCOUNT in error.what
    with pytest.raises(NotOwned, match="999999999999"):
        await provision.destroy(place, Silent())


async def test_nothing_is_removed_while_an_earlier_terraform_is_at_work(cloud, place):
    record(place, OWNER)
    interrupt_run(place, 0)
    role = cloud.iam_role(OWNER)
    lock = place.cluster_dir / "terraform.lock"
    program = (
        "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2);"
        " print(1,flush=True); time.sleep(600)"
    )
    earlier = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE)
    try:
        assert earlier.stdout is not None
        earlier.stdout.readline()
        with pytest.raises(Busy):
            await provision.deploy(place, Recorded())
    finally:
        earlier.kill()
        earlier.wait()
    assert cloud.roles() == {role}


async def test_a_folder_raised_before_ids_existed_goes_on_working(cloud, place):
    vpc, subnet = cloud.vpc("")
    masters = [cloud.machine("", subnet) for _ in range(3)]
    write_state(place.cluster_dir, "network", [("aws_vpc", {"id": vpc})])
    write_state(place.cluster_dir, "masters", [("aws_instance", {"id": i}) for i in masters])
    caller = provision.require_ownership(place)
    assert caller.account_id == ACCOUNT


def test_a_record_that_is_written_again_has_the_secret_of_the_living_masters(cloud, place):
    """Another secret would replace every master at the next `mesaform up`."""

    def document(role: Role, secret: str) -> str:
        content = NodeDocument(
            NODE_DOCUMENT_VERSION, place.spec.name, role, "us-east-1", "embedded", (), "r"
        )
        return msgspec.json.encode(msgspec.structs.replace(content, secret=secret)).decode()

    _, subnet = cloud.vpc(OWNER)
    cloud.machine(OWNER, subnet, user_data="garbage")
    cloud.machine(OWNER, subnet, role="agent", user_data=document("agent", "0" * 64))
    cloud.machine(OWNER, subnet, user_data=document("master", "ab" * 32))
    provision.restore_deployment(place, OWNER)
    restored = read_deployment(place.cluster_dir)
    assert restored is not None
    assert (restored.deployment_id, restored.secret) == (OWNER, "ab" * 32)
