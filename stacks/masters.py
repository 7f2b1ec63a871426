"""Masters, spread over the zones, at private addresses that are known before they exist."""

from __future__ import annotations

from mesaform.topology import addresses, iam
from mesaform.topology.launch_documents import MasterData
from mesaform.topology.user_data import DataVolume
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.machines import MachineSettings, Profile, instance, instance_profile
from mesaform_stacks.network import NetworkStack


class MastersStack(ClusterStack):
    def __init__(self, settings: Settings, network: NetworkStack) -> None:
        super().__init__("masters", settings)
        profile = instance_profile(self, "master", self._rights(network))
        masters = [
            self._master(number, network, profile) for number in range(self.spec.masters.count)
        ]
        self.put("instance_ids", [master.id for master in masters])
        self.put("private_addresses", [master.private_ip for master in masters])
        self.put("public_addresses", [master.public_ip for master in masters])

    def _rights(self, network: NetworkStack) -> iam.Document:
        account_id = aws.DataAwsCallerIdentity(self, "account").account_id
        types = [name for pool in self.spec.agents for name in pool.types]
        document = iam.master_document(
            self.spec.name,
            self.spec.region,
            account_id,
            types,
            iam_path=self.spec.account.iam_path,
            kms_key=self.spec.account.kms_key,
        )
        if self.spec.network.mode == "existing":
            region = self.spec.region
            document = iam.with_subnets(document, region, account_id, network.subnet_ids)
        if self.spec.ttl:
            document = iam.with_end(document, self.spec.name, self.spec.region, account_id)
        return document

    def _master(self, number: int, network: NetworkStack, profile: Profile) -> aws.Instance:
        zones = len(network.subnet_ids)
        fixed = addresses.master_addresses(self.spec)
        interfaces = network.master_interfaces
        return instance(
            self,
            f"master-{number + 1}",
            MachineSettings(
                role="master",
                pool="",
                instance_type=self.spec.masters.type,
                disk_gib=self.spec.masters.disk_gib,
                subnet_id=network.subnet_ids[number % zones],
                group_id=network.group_ids["master"],
                profile=profile,
                master_addresses=tuple(network.master_addresses),
                address=str(fixed[number]) if fixed else None,
                interface_id=interfaces[number] if interfaces else None,
                data=MasterData(
                    self.settings.secret,
                    DataVolume(network.volume_ids[number], self.settings.deployment_id),
                ),
            ),
        )
