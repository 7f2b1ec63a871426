"""The network of a cluster: its own VPC or an existing one, security groups, and what is optional.

The groups admit only what `mesaform.topology.ports` lists.
"""

from __future__ import annotations

from mesaform.topology import addresses, names, ports
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.existing_vpc import ExistingVpc
from mesaform_stacks.load_balancer import LoadBalancer
from mesaform_stacks.own_vpc import ANYWHERE, ANYWHERE_IPV6, OwnVpc
from mesaform_stacks.private_dns import add_private_zone
from mesaform_stacks.volumes import data_volumes


class NetworkStack(ClusterStack):
    """Exposes what machines need.

    Attributes:
        subnet_ids: the machines' subnets, one a zone in the spec's order.
        group_ids: the security groups by what they belong to.
        master_addresses: the masters' private addresses, in the order of their numbers.
        master_interfaces: ids of the masters' network interfaces in an existing VPC; otherwise
            empty, since masters then get their addresses when they are launched.
        volume_ids: the masters' data volumes, in the order of the masters; they outlive machines,
            as the network does.

    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("network", settings)
        is_existing = self.spec.network.mode == "existing"
        self._place = ExistingVpc(self) if is_existing else OwnVpc(self)
        self.subnet_ids = list(self._place.machine_subnets.values())
        self.group_ids = self._groups()
        self.master_interfaces: list[str] = []
        self.master_addresses = [str(item) for item in addresses.master_addresses(self.spec)]
        if isinstance(self._place, ExistingVpc):
            self._master_interfaces()
        elif endpoint_group := self.group_ids.get("endpoint"):
            self._place.add_interface_endpoints(endpoint_group)
        self._names()
        self.volume_ids = data_volumes(self, self.spec.zones)
        self.put("vpc_id", self._place.id)
        self.put("subnet_ids", self._place.machine_subnets)
        self.put("security_group_ids", self.group_ids)
        self.put("data_volume_ids", self.volume_ids)

    def _master_interfaces(self) -> None:
        """Interfaces that outlive masters, so that their addresses are known before they exist."""
        for number, zone in enumerate(addresses.master_zones(self.spec), start=1):
            interface = aws.NetworkInterface(
                self,
                f"master-{number}",
                subnet_id=self._place.machine_subnets[zone],
                security_groups=[self.group_ids["master"]],
                description=f"master {number} of the Mesos cluster {self.spec.name}",
                tags=self.named(f"master-{number}", ROLE="master"),
            )
            self.master_interfaces.append(interface.id)
            self.master_addresses.append(interface.private_ip)
        self.put("master_addresses", self.master_addresses)

    def _names(self) -> None:
        """The load balancer and the private zone, where they are wanted."""
        balancer = None
        if self.spec.network.load_balancer:
            balancer = LoadBalancer(
                self,
                self._place.id,
                list(self._place.service_subnets.values()),
                self.group_ids["load-balancer"],
                self.master_addresses,
            )
            self.put("load_balancer_name", balancer.dns_name)
        if self.spec.network.private_dns:
            name = balancer.dns_name if balancer else None
            add_private_zone(self, self._place.id, self.master_addresses, name)

    def _groups(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        for group in ports.groups(self.spec):
            roles = {"ROLE": group} if group in {"master", "agent"} else {}
            ids[group] = aws.SecurityGroup(
                self,
                f"{group}s",
                name=f"{names.prefix(self.spec)}-{group}s",
                description=f"{group}s of the Mesos cluster {self.spec.name}",
                vpc_id=self._place.id,
                tags=self.named(f"{group}s", **roles),
            ).id
            if group != "endpoint":
                self._way_out(group, ids[group])
        for rule in ports.ingress_rules(self.spec):
            self._ingress(rule, ids)
        return ids

    def _way_out(self, group: str, group_id: str) -> None:
        """Machines and the load balancer may open connections to everywhere."""
        aws.VpcSecurityGroupEgressRule(
            self,
            f"{group}s-out",
            security_group_id=group_id,
            ip_protocol="-1",
            cidr_ipv4=ANYWHERE,
            description=f"{group}s to everywhere",
            tags=self.named(f"{group}s-out"),
        )
        if self.spec.network.ipv6:
            aws.VpcSecurityGroupEgressRule(
                self,
                f"{group}s-out-ipv6",
                security_group_id=group_id,
                ip_protocol="-1",
                cidr_ipv6=ANYWHERE_IPV6,
                description=f"{group}s to everywhere by IPv6",
                tags=self.named(f"{group}s-out-ipv6"),
            )

    def _ingress(self, rule: ports.IngressRule, group_ids: dict[str, str]) -> None:
        inside = group_ids.get(rule.source)
        aws.VpcSecurityGroupIngressRule(
            self,
            f"{rule.group}-{rule.first_port}-from-{rule.source.replace('/', '-')}",
            security_group_id=group_ids[rule.group],
            ip_protocol="tcp",
            from_port=rule.first_port,
            to_port=rule.last_port,
            description=rule.why,
            cidr_ipv4=None if inside else rule.source,
            referenced_security_group_id=inside,
            tags=self.named(rule.why.replace(" ", "-")),
        )
