"""Checkouts that raise and remove clusters at the level of AWS's API, without Terraform.

Provisioning creates one resource of each sort that the stacks declare, and writes Terraform's
state. Everything else is the product's code: ownership, the deployment's record, adoption, orphans,
survey, teardown and proof. moto answers in the process of the test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesaform import provision
from mesaform.aws.client import client
from mesaform.aws.errors import translate_errors
from mesaform.aws.fleet import AwsFleet
from mesaform.aws.resources.sweep import Sweep, resource_kinds
from mesaform.cli.context import Context, open_context
from mesaform.common.progress import Silent
from mesaform.provision import deployment, orphans
from mesaform.provision.adoption import search_account
from mesaform.provision.state_folders import STACKS, stack_dir
from mesaform.provision.terraform_state import read_states, stack_ids
from mesaform.teardown.account_check import require_listed_state, require_proof
from mesaform.teardown.execute import Teardown
from mesaform.teardown.journal import Journal, seen_before
from mesaform.teardown.plan import TeardownRequest, plan
from mesaform.teardown.receipt import ReceiptFacts
from mesaform.teardown.survey import TeardownPorts, survey
from mesaform.topology import iam, names
from mesaform.topology.names import Tag
from tests.support.terraform_state import write_state

Ids = dict[str, dict[str, str]]
"""Stack -> Terraform's type -> id."""
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
NETWORK = ("aws_vpc", "aws_subnet", "aws_security_group")
STACK_OF = {
    **dict.fromkeys(NETWORK, "network"),
    "aws_iam_role": "masters",
    "aws_instance": "masters",
    "aws_launch_template": "agents",
    "aws_ssm_parameter": "agents",
}
"""The resources of a cluster, in the order of their creation, and their stacks."""


@dataclass(frozen=True)
class Account:
    """Credentials of an account."""

    variables: Mapping[str, str]

    @contextmanager
    def entered(self) -> Iterator[None]:
        before = {key: os.environ.get(key) for key in self.variables}
        os.environ.update(self.variables)
        try:
            yield
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value


@dataclass
class Checkout:
    """A folder with a cluster file. `network` begins the addresses of its VPC."""

    context: Context
    account: Account
    image_id: str = "ami-12c6146b"
    network: str = "10.99"

    @property
    def deployment_id(self) -> str:
        record = deployment.read_deployment(self.context.cluster_dir)
        return record.deployment_id if record else ""

    async def up(self, ends_after: int = len(STACK_OF)) -> None:
        """Raise the cluster; with `ends_after` the run is killed after so many resources.

        The last resource of a killed run exists, and no state lists it.
        """
        place = self.context
        caller, view, knowledge = provision._look_at_account(place)
        deployment.establish_deployment(place.cluster_dir, caller, place.spec.region)
        ids = self._known()
        if knowledge.interrupted_at is not None:
            ids.update(self._adopted())
            self._write_state(ids)
            view, knowledge = provision._look_at_account(place)[1:]
            await orphans.clear_orphans(place, view, knowledge, Silent())
        orphans.mark_unfinished(place.cluster_dir, caller.cloud_time_s)
        for count, kind in enumerate(STACK_OF, 1):
            if kind not in ids:
                created = self._create(kind, ids)
                if count == ends_after < len(STACK_OF):
                    return
                ids[kind] = created
                self._write_state(ids)
        orphans.unfinished(place.cluster_dir).unlink()

    async def down(self) -> None:
        """Remove the cluster, with the proof that nothing of it is left."""
        place, folder = self.context, self.context.cluster_dir
        caller = provision.require_pinned_account(place)
        ports = self._ports()
        surveyed = await survey(ports)
        where = f"the AWS account {caller.account_id}"
        require_listed_state(
            surveyed.inventory, seen=seen_before(folder), where=where, folder=folder
        )
        require_proof(
            surveyed.inventory, has_record=bool(self.deployment_id), where=where, folder=folder
        )
        journal = Journal(folder, place.spec.name, 0.0)
        teardown = Teardown(ports, journal, Silent(), drain_grace_s=0.0)
        outcome = await teardown.run(surveyed, plan(surveyed.inventory, TeardownRequest()))
        facts = ReceiptFacts(place.spec.name, "local", place.spec.region, 0.0, 0.0)
        journal.close(teardown.receipt(surveyed, outcome, facts).as_record(), 0.0)

    def _ports(self) -> TeardownPorts:
        spec = self.context.spec
        kinds = resource_kinds(spec.name, spec.region)
        return TeardownPorts(
            cluster=spec.name,
            fleet=AwsFleet(spec.region),
            sweep=Sweep(kinds, spec.name, sleep=no_sleep, rounds=5),
            control=None,
            ledger=None,
            operator=None,
            stacks=lambda: stack_ids(self.context.cluster_dir),
            destroy=self._destroy,
            forget=lambda: provision.forget_deployment(self.context),
            deployment_id=self.deployment_id,
            sleep=no_sleep,
        )

    async def _destroy(self, stacks: tuple[str, ...]) -> None:
        """Terraform's part is left to the sweep, as after a Terraform that failed."""

    def _known(self) -> dict[str, str]:
        """The ids of Terraform's state by type."""
        states = read_states(self.context.cluster_dir)
        return {item.kind: item.id for state in states.values() for item in state.resources}

    def _adopted(self) -> dict[str, str]:
        """What the product finds of its own in the account, as declared by the stacks."""
        found = search_account(self.context, self.deployment_id)
        return {item.declared.kind: item.import_id for item in found.imports}

    def _write_state(self, ids: Mapping[str, str]) -> None:
        for stack in STACKS:
            listed: list[tuple[str, dict[str, object]]] = [
                (kind, {"id": ids[kind], "name": self._name(kind)})
                for kind in STACK_OF
                if STACK_OF[kind] == stack and kind in ids
            ]
            write_state(self.context.cluster_dir, stack, listed)

    def declare(self) -> None:
        """What cdktf writes: each resource with its name."""
        for stack in STACKS:
            resources = {
                kind: {"x": {"name": self._name(kind), "tags": {"Name": self._name(kind)}}}
                for kind, of in STACK_OF.items()
                if of == stack
            }
            folder = stack_dir(self.context.cluster_dir, stack)
            folder.mkdir(parents=True)
            (folder / "cdk.tf.json").write_text(json.dumps({"resource": resources}))

    def _name(self, kind: str) -> str:
        spec = self.context.spec
        return {
            "aws_iam_role": iam.role_name(spec.name, spec.region, "master"),
            "aws_launch_template": names.launch_template_name(spec.name, "default"),
            "aws_ssm_parameter": names.spec_parameter_name(spec.name),
        }.get(kind, f"{names.prefix(spec)}-{kind}")

    def _create(self, kind: str, ids: Mapping[str, str]) -> str:
        """Create a resource with the tags that the stacks give it; its id."""
        spec = self.context.spec
        extra = {"DEPLOYMENT": self.deployment_id, "NAME": self._name(kind)}
        if kind == "aws_instance":
            extra |= {"ROLE": "master", "MANAGED_BY": "terraform"}
        tags = [{"Key": k, "Value": v} for k, v in names.tags(spec, **extra).items()]
        ec2 = client("ec2", spec.region)

        def of(resource: str) -> Any:
            return [{"ResourceType": resource, "Tags": tags}]

        def role() -> str:
            name = self._name(kind)
            client("iam", spec.region).create_role(
                RoleName=name, AssumeRolePolicyDocument=TRUST, Tags=tags
            )
            return name

        def parameter() -> str:
            name = self._name(kind)
            client("ssm", spec.region).put_parameter(
                Name=name, Value="{}", Type="String", Tags=tags
            )
            return name

        create: Mapping[str, Callable[[], str]] = {
            "aws_vpc": lambda: ec2.create_vpc(
                CidrBlock=f"{self.network}.0.0/16", TagSpecifications=of("vpc")
            )["Vpc"]["VpcId"],
            "aws_subnet": lambda: ec2.create_subnet(
                VpcId=ids["aws_vpc"],
                CidrBlock=f"{self.network}.0.0/20",
                TagSpecifications=of("subnet"),
            )["Subnet"]["SubnetId"],
            "aws_security_group": lambda: ec2.create_security_group(
                VpcId=ids["aws_vpc"],
                GroupName=f"{names.prefix(spec)}-master",
                Description="-",
                TagSpecifications=of("security-group"),
            )["GroupId"],
            "aws_iam_role": role,
            "aws_instance": lambda: ec2.run_instances(
                ImageId=self.image_id,
                MinCount=1,
                MaxCount=1,
                InstanceType="t3.medium",
                SubnetId=ids["aws_subnet"],
                SecurityGroupIds=[ids["aws_security_group"]],
                TagSpecifications=of("instance"),
            )["Instances"][0]["InstanceId"],
            "aws_launch_template": lambda: ec2.create_launch_template(
                LaunchTemplateName=self._name(kind),
                LaunchTemplateData={"InstanceType": "m5.large"},
                TagSpecifications=of("launch-template"),
            )["LaunchTemplate"]["LaunchTemplateId"],
            "aws_ssm_parameter": parameter,
        }
        with translate_errors(f"create {kind}"):
            return create[kind]()


async def no_sleep(_seconds: float) -> None:
    """Pauses of the teardown pass at once."""


def open_checkout(
    folder: Path, name: str, region: str, account: Account, **settings: str
) -> Checkout:
    """A checkout with the cluster file and nothing else."""
    folder.mkdir(parents=True)
    text = f"name: {name}\nregion: {region}\nnetwork: {{cidr: 127.60.0.0/16}}\n"
    (folder / "cluster.yaml").write_text(text)
    checkout = Checkout(open_context(str(folder / "cluster.yaml")), account, **settings)
    checkout.declare()
    return checkout


def census(region: str) -> dict[str, str]:
    """Everything that tests create in the present account and region: id -> all that is known."""
    ec2 = client("ec2", region)
    described: dict[str, str] = {}
    instances = ec2.describe_instances()["Reservations"]
    groups = ec2.describe_security_groups()["SecurityGroups"]  # a default one is its VPC's
    listed = [
        ("InstanceId", [i for r in instances for i in r["Instances"]]),
        ("VpcId", ec2.describe_vpcs()["Vpcs"]),
        ("SubnetId", ec2.describe_subnets()["Subnets"]),
        ("GroupId", [group for group in groups if group["GroupName"] != "default"]),
        ("LaunchTemplateId", ec2.describe_launch_templates()["LaunchTemplates"]),
    ]
    for key, raws in listed:
        described |= {raw[key]: _facts(raw) for raw in raws}
    roles = client("iam", region).list_roles()["Roles"]
    for raw in roles:
        tags = client("iam", region).list_role_tags(RoleName=raw["RoleName"])["Tags"]
        described[raw["Arn"]] = _facts({**raw, "Tags": tags})
    ssm = client("ssm", region)
    for raw in ssm.describe_parameters()["Parameters"]:
        name = raw["Name"]
        tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
        described[f"{region}{name}"] = _facts({**raw, "Tags": tags})
    return {identity: facts for identity, facts in described.items() if "terminated" not in facts}


def _facts(raw: Mapping[str, Any]) -> str:
    """State and tags of a resource."""
    state = raw.get("State")
    tags = sorted((tag["Key"], tag["Value"]) for tag in raw.get("Tags", []))
    return json.dumps([state, dict(tags).get(Tag.DEPLOYMENT, ""), tags], default=str)
