"""VPC, one public subnet per zone, and security groups.

There is no NAT gateway: machines have public addresses. The groups admit only what
`mesaform.topology.ports` lists.
"""

from __future__ import annotations

from mesaform.topology import addresses, names, ports, user_data
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.volumes import data_volumes

ANYWHERE = "0.0.0.0/0"


class NetworkStack(ClusterStack):
    """Exposes `subnet_ids`, one a zone in the spec's order, and `group_ids` by role.

    It also holds the masters' data volumes, `volume_ids` in the order of the masters: they outlive
    machines, as the network does.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("network", settings)
        self.vpc = aws.Vpc(self, "vpc", cidr_block=self.spec.network.cidr, tags=self.named("vpc"))
        self.subnet_ids = self._subnets()
        self.group_ids = self._groups()
        self.volume_ids = data_volumes(self, self.spec.zones)
        self.put("vpc_id", self.vpc.id)
        self.put("subnet_ids", dict(zip(self.spec.zones, self.subnet_ids, strict=True)))
        self.put("security_group_ids", self.group_ids)
        self.put("data_volume_ids", self.volume_ids)

    def _subnets(self) -> list[str]:
        gateway = aws.InternetGateway(
            self, "gateway", vpc_id=self.vpc.id, tags=self.named("gateway")
        )
        table = aws.RouteTable(self, "routes", vpc_id=self.vpc.id, tags=self.named("routes"))
        aws.Route(
            self,
            "way-out",
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
        )
        ids = []
        for zone, cidr in zip(self.spec.zones, addresses.subnets(self.spec), strict=True):
            subnet = aws.Subnet(
                self,
                f"subnet-{zone}",
                vpc_id=self.vpc.id,
                availability_zone=zone,
                cidr_block=str(cidr),
                map_public_ip_on_launch=True,
                tags=self.named(zone),
            )
            aws.Ec2SubnetCidrReservation(
                self,
                f"masters-{zone}",
                subnet_id=subnet.id,
                cidr_block=str(addresses.reserved_for_masters(cidr)),
                reservation_type="explicit",
            )
            aws.RouteTableAssociation(
                self, f"routes-{zone}", route_table_id=table.id, subnet_id=subnet.id
            )
            ids.append(subnet.id)
        return ids

    def _groups(self) -> dict[str, str]:
        aws.DefaultSecurityGroup(
            self, "default-group", vpc_id=self.vpc.id, tags=self.named("default-closed")
        )
        ids: dict[str, str] = {}
        for role in user_data.ROLES:
            group = aws.SecurityGroup(
                self,
                f"{role}s",
                name=f"{names.prefix(self.spec)}-{role}s",
                description=f"{role}s of the Mesos cluster {self.spec.name}",
                vpc_id=self.vpc.id,
                tags=self.named(f"{role}s", ROLE=role),
            )
            aws.VpcSecurityGroupEgressRule(
                self,
                f"{role}s-out",
                security_group_id=group.id,
                ip_protocol="-1",
                cidr_ipv4=ANYWHERE,
                tags=self.named(f"{role}s-out"),
            )
            ids[role] = group.id
        for rule in ports.ingress_rules(self.spec):
            self._ingress(rule, ids)
        return ids

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
