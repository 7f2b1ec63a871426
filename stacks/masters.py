"""Three masters, one a zone, at fixed private addresses that are known before they exist."""

from __future__ import annotations

from mesaform.topology import addresses, iam
from mesaform.topology.launch_documents import MasterData
from mesaform.topology.user_data import DataVolume
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.machines import MachineSettings, instance, instance_profile
from mesaform_stacks.network import NetworkStack


class MastersStack(ClusterStack):
    def __init__(self, settings: Settings, network: NetworkStack) -> None:
        super().__init__("masters", settings)
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
        profile = instance_profile(self, "master", document)
        masters = [
            instance(
                self,
                f"master-{index + 1}",
                MachineSettings(
                    role="master",
                    pool="",
                    instance_type=self.spec.masters.type,
                    disk_gib=self.spec.masters.disk_gib,
                    subnet_id=network.subnet_ids[index % len(network.subnet_ids)],
                    group_id=network.group_ids["master"],
                    profile=profile,
                    address=str(address),
                    data=MasterData(
                        settings.secret,
                        DataVolume(network.volume_ids[index], settings.deployment_id),
                    ),
                ),
            )
            for index, address in enumerate(addresses.master_addresses(self.spec))
        ]
        self.put("instance_ids", [master.id for master in masters])
        self.put("private_addresses", [master.private_ip for master in masters])
        self.put("public_addresses", [master.public_ip for master in masters])
