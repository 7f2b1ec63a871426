"""EC2 instances of masters and of Terraform's own agents, and their instance profiles."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mesaform.common.architecture import Architecture, architecture_of
from mesaform.topology import iam, launch_documents, user_data
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, cluster_tags

BOOTED_WITH = ("ami", "user_data")
"""Attributes that only `mesaform upgrade` changes at a running machine (ADR 0037)."""
IMDS_HOPS = 1  # answers never leave the machine itself


@dataclass(frozen=True, slots=True)
class Profile:
    """Name of an instance profile, as references to what must exist before a machine names it.

    The role has the profile's name. `name` waits for the profile: the provider looks at it for 5 s
    after it made it. `role_name` waits for the role alone: the provider repeats a launch that EC2
    refuses because the profile is not known yet, or has no role yet. Machines name `role_name`, so
    that they are launched beside the profile (docs/adr/0065).
    """

    name: str
    role_name: str


def instance_profile(
    stack: ClusterStack, role: user_data.Role, document: iam.Document | None
) -> Profile:
    """The role's instance profile.

    Without a document, and without `debug: ssm`, it may do nothing at all.
    """
    if stack.spec.debug == "ssm":
        document = iam.with_session_manager(document)
    name = iam.role_name(stack.spec.name, stack.spec.region, role)
    account = stack.spec.account
    iam_role = aws.IamRole(
        stack,
        "role",
        name=name,
        path=account.iam_path,
        permissions_boundary=account.permissions_boundary,
        assume_role_policy=json.dumps(iam.trust_document(stack.spec.region)),
        tags=stack.named(role),
    )
    if document is not None:
        aws.IamRolePolicy(
            stack, "rights", name="mesaform", role=iam_role.id, policy=json.dumps(document)
        )
    profile = aws.IamInstanceProfile(
        stack,
        "profile",
        name=name,
        path=account.iam_path,
        role=iam_role.name,
        tags=stack.named(role),
    )
    return Profile(profile.name, iam_role.name)


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Settings of a machine that Terraform keeps. `pool` is empty for masters.

    `address` is the private address; None lets EC2 choose one. With `interface_id` the machine
    gets that network interface, which has subnet, groups and address already. `data` is what only
    masters get.
    """

    role: user_data.Role
    pool: str
    instance_type: str
    disk_gib: int
    subnet_id: str
    group_id: str
    profile: Profile
    master_addresses: tuple[str, ...]
    address: str | None = None
    data: launch_documents.MasterData | None = None
    interface_id: str | None = None


def _given_interfaces(machine: MachineSettings) -> list[aws.InstanceNetworkInterface] | None:
    """The machine's interface if it exists already."""
    if not machine.interface_id:
        return None
    return [aws.InstanceNetworkInterface(device_index=0, network_interface_id=machine.interface_id)]


def membership(
    stack: ClusterStack, pool: str, architecture: Architecture, *, has_lease: bool = False
) -> launch_documents.Membership:
    """The pool of a machine, and what its agent proves itself with."""
    secret = launch_documents.agent_secret(stack.spec, stack.settings.secret)
    return launch_documents.Membership(pool, architecture, has_lease, secret)


def instance(stack: ClusterStack, name: str, machine: MachineSettings) -> aws.Instance:
    """A machine that Terraform keeps.

    The public address comes from the subnet, not from the instance: a request for it here would put
    the groups into a network interface, and the next plan would set them again.
    """
    is_upgraded = machine.role in stack.settings.upgraded_roles
    pool = {"POOL": machine.pool} if machine.pool else {}
    extra = {"ROLE": machine.role, "MANAGED_BY": "terraform", **pool}
    architecture = architecture_of(machine.instance_type)
    document = launch_documents.node_document(
        stack.spec,
        machine.role,
        stack.settings.images.recipe,
        membership(stack, machine.pool, architecture),
        masters=machine.data,
        authorities=stack.settings.authorities,
    )
    document = launch_documents.with_masters(document, machine.master_addresses)
    interfaces = _given_interfaces(machine)
    return aws.Instance(
        stack,
        name,
        ami=stack.settings.images.of(architecture).image_id,
        instance_type=machine.instance_type,
        subnet_id=None if interfaces else machine.subnet_id,
        private_ip=machine.address,
        vpc_security_group_ids=None if interfaces else [machine.group_id],
        network_interface=interfaces,
        iam_instance_profile=machine.profile.role_name,
        user_data=document,
        user_data_replace_on_change=True,
        metadata_options=aws.InstanceMetadataOptions(
            http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=IMDS_HOPS
        ),
        root_block_device=aws.InstanceRootBlockDevice(
            volume_type="gp3",
            volume_size=machine.disk_gib,
            encrypted=True,
            kms_key_id=stack.spec.account.kms_key,
            delete_on_termination=True,
            # The provider reads the tags of every resource of an imported machine's disk as tags of
            # the disk's own, and would take them away if they were not named here.
            tags=cluster_tags(stack.settings),
        ),
        tags=stack.named(name, **extra),
        ignored_changes=() if is_upgraded else BOOTED_WITH,
    )
