"""Agents: launch templates for the autoscaler, and `count` machines of Terraform.

A pool has a template for each architecture of its types, because a template names one image.
"""

from __future__ import annotations

from mesaform.common.architecture import Architecture, architecture_of
from mesaform.config.schema import Pool
from mesaform.topology import launch_documents, names
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.description import encode_base64
from mesaform_stacks.machines import (
    IMDS_HOPS,
    MachineSettings,
    instance,
    instance_profile,
    membership,
)
from mesaform_stacks.network import NetworkStack

TAGGED = ("instance", "volume", "network-interface")
STANDARD_PARAMETER_BYTES = 4096


class AgentsStack(ClusterStack):
    def __init__(self, settings: Settings, network: NetworkStack) -> None:
        super().__init__("agents", settings)
        self._network = network
        self._profile = instance_profile(self, "agent", None)
        self._spec_parameter()
        templates: dict[str, str] = {}
        instances: dict[str, list[str]] = {}
        for pool in self.spec.agents:
            for architecture in pool.architectures:
                key = names.template_key(pool.name, architecture)
                templates[key] = self._template(pool, architecture).id
            instances[pool.name] = [self._machine(pool, index).id for index in range(pool.count)]
        self.put("launch_template_ids", templates)
        self.put("instance_ids", instances)

    def _spec_parameter(self) -> None:
        """The spec for the autoscaler, which reads it again regularly; no machine changes."""
        value = self.spec.model_dump_json()
        aws.SsmParameter(
            self,
            "spec",
            name=names.spec_parameter_name(self.spec.name),
            description=f"The spec of the Mesos cluster {self.spec.name}, for its autoscaler",
            type="String",
            tier="Standard" if len(value.encode()) <= STANDARD_PARAMETER_BYTES else "Advanced",
            value=value,
            tags=self.named("spec"),
        )

    def _machine(self, pool: Pool, index: int) -> aws.Instance:
        return instance(
            self,
            f"{pool.name}-{index + 1}",
            MachineSettings(
                role="agent",
                pool=pool.name,
                instance_type=pool.types[0],
                disk_gib=pool.disk_gib,
                subnet_id=self._network.subnet_ids[index % len(self._network.subnet_ids)],
                group_id=self._network.group_ids["agent"],
                profile=self._profile,
                master_addresses=tuple(self._network.master_addresses),
            ),
        )

    def _template(self, pool: Pool, architecture: Architecture) -> aws.LaunchTemplate:
        """Type and subnet are the request's to choose; its tags come on top of these."""
        key = names.template_key(pool.name, architecture)
        image = self.settings.images.of(architecture)
        default_type = next(name for name in pool.types if architecture_of(name) == architecture)
        tags = self.named(pool.name, ROLE="agent", POOL=pool.name, MANAGED_BY="autoscaler")
        document = launch_documents.node_document(
            self.spec,
            "agent",
            self.settings.images.recipe,
            membership(self, pool.name, architecture, has_lease=True),
            authorities=self.settings.authorities,
        )
        document = launch_documents.with_masters(document, self._network.master_addresses)
        return aws.LaunchTemplate(
            self,
            f"{key}-template",
            name=names.launch_template_name(self.spec.name, pool.name, architecture),
            description=f"Agents of the pool {key}",
            update_default_version=True,
            image_id=image.image_id,
            instance_type=default_type,
            vpc_security_group_ids=[self._network.group_ids["agent"]],
            iam_instance_profile=aws.LaunchTemplateIamInstanceProfile(name=self._profile.name),
            user_data=encode_base64(document),
            # A machine whose lease expired powers itself off.
            instance_initiated_shutdown_behavior="terminate",
            metadata_options=aws.LaunchTemplateMetadataOptions(
                http_endpoint="enabled",
                http_tokens="required",
                http_put_response_hop_limit=IMDS_HOPS,
            ),
            block_device_mappings=[
                _root_disk(image.root_device, pool.disk_gib, self.spec.account.kms_key)
            ],
            tag_specifications=[
                aws.LaunchTemplateTagSpecifications(resource_type=kind, tags=tags)
                for kind in TAGGED
            ],
            tags=self.named(
                f"{key}-template",
                ROLE="agent",
                POOL=pool.name,
                MANAGED_BY="terraform",
                ARCHITECTURE=architecture,
            ),
        )


def _root_disk(device: str, gib: int, kms_key: str | None) -> aws.LaunchTemplateBlockDeviceMappings:
    return aws.LaunchTemplateBlockDeviceMappings(
        device_name=device,
        ebs=aws.LaunchTemplateBlockDeviceMappingsEbs(
            volume_type="gp3",
            volume_size=gib,
            encrypted="true",
            kms_key_id=kms_key,
            delete_on_termination="true",
        ),
    )
