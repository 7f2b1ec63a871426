"""What masters and Terraform's own agents have in common: an EC2 instance that runs `node` from the baked image."""

from __future__ import annotations

import json

from mesaform.topology import iam, launch_documents, user_data
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack

IMDS_HOPS = 1  # answers never leave the machine itself


def instance_profile(
    stack: ClusterStack, role: user_data.Role, document: iam.Document | None
) -> str:
    """The role's instance profile, by name; without a document it may do nothing at all."""
    name = iam.role_name(stack.spec.name, role)
    trust = json.dumps(iam.trust_document(stack.spec.region))
    iam_role = aws.IamRole(
        stack, "role", name=name, assume_role_policy=trust, tags=stack.named(role)
    )
    if document is not None:
        aws.IamRolePolicy(
            stack, "rights", name="mesaform", role=iam_role.id, policy=json.dumps(document)
        )
    profile: str = aws.IamInstanceProfile(
        stack, "profile", name=name, role=iam_role.name, tags=stack.named(role)
    ).name
    return profile


def instance(
    stack: ClusterStack,
    name: str,
    *,
    role: user_data.Role,
    pool: str,
    instance_type: str,
    disk_gib: int,
    subnet_id: str,
    group_id: str,
    profile: str,
    address: str | None = None,
) -> aws.Instance:
    """A machine that Terraform keeps.

    The public address comes from the subnet, not from the instance: asking for it here would put the groups into a network
    interface of the request, and the next plan would want to set them again.
    """
    extra = {"ROLE": role, "MANAGED_BY": "terraform", **({"POOL": pool} if pool else {})}
    return aws.Instance(
        stack,
        name,
        ami=stack.settings.image_id,
        instance_type=instance_type,
        subnet_id=subnet_id,
        private_ip=address,
        vpc_security_group_ids=[group_id],
        iam_instance_profile=profile,
        user_data=launch_documents.node_document(stack.spec, role, stack.settings.recipe, pool),
        user_data_replace_on_change=True,
        metadata_options=aws.InstanceMetadataOptions(
            http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=IMDS_HOPS
        ),
        root_block_device=aws.InstanceRootBlockDevice(
            volume_type="gp3", volume_size=disk_gib, encrypted=True, delete_on_termination=True
        ),
        tags=stack.named(name, **extra),
    )
