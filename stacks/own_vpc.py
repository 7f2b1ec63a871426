"""The cluster's own VPC: subnets, ways out, VPC endpoints and flow logs.

In mode public machines have public addresses and leave through an internet gateway. In mode private
they leave through NAT gateways in subnets of their own, or reach AWS through VPC endpoints only.
"""

from __future__ import annotations

import json

from mesaform.topology import addresses, endpoints, iam, names
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack
from mesaform_stacks.description import Call, divide_cidr

ANYWHERE = "0.0.0.0/0"
ANYWHERE_IPV6 = "::/0"
INTERNET_GATEWAY = "gateway"
IPV6_SUBNET_BITS = 8
"""A VPC has a /56, a subnet a /64."""


class OwnVpc:
    """Exposes `id`, and by zone `machine_subnets` and `service_subnets`.

    Service subnets hold NAT gateways, endpoints and the nodes of the load balancer. In mode public
    they are the machines' subnets.
    """

    def __init__(self, stack: ClusterStack) -> None:
        self._stack = stack
        self._spec = stack.spec
        wanted = self._spec.network
        self._vpc = aws.Vpc(
            stack,
            "vpc",
            cidr_block=wanted.cidr,
            assign_generated_ipv6_cidr_block=True if wanted.ipv6 else None,
            # Private zones and the names of interface endpoints need them.
            enable_dns_support=True if self._has_private_names else None,
            enable_dns_hostnames=True if self._has_private_names else None,
            tags=stack.named("vpc"),
        )
        self.id: str = self._vpc.id
        self._gateway = self._internet_gateway() if wanted.has_internet_gateway else None
        aws.DefaultSecurityGroup(
            stack, "default-group", vpc_id=self.id, tags=stack.named("default-closed")
        )
        if wanted.mode == "private":
            self.service_subnets = self._private_ways()
        else:
            self._public_ways()
            self.service_subnets = self.machine_subnets
        if wanted.flow_logs != "none":
            self._flow_logs()

    @property
    def _has_private_names(self) -> bool:
        return bool(self._spec.network.private_dns or endpoints.interface_endpoints(self._spec))

    def _internet_gateway(self) -> aws.InternetGateway:
        tags = self._stack.named(INTERNET_GATEWAY)
        return aws.InternetGateway(self._stack, INTERNET_GATEWAY, vpc_id=self.id, tags=tags)

    # --- mode public

    def _public_ways(self) -> None:
        table = self._table("routes")
        self._route_to_internet(table, "way-out")
        self.machine_subnets = self._machine_subnets(dict.fromkeys(self._spec.zones, table))

    # --- mode private

    def _private_ways(self) -> dict[str, str]:
        """Service subnets first: NAT gateways stand in them. Returns them by zone."""
        services = self._service_subnets()
        tables = {zone: self._table(f"routes-{zone}") for zone in self._spec.zones}
        if self._spec.network.nat != "none":
            self._nat_routes(services, tables)
        self._s3_endpoint(list(tables.values()))
        self.machine_subnets = self._machine_subnets(tables)
        return services

    def _service_subnets(self) -> dict[str, str]:
        table = self._table("service-routes")
        if self._gateway is not None:
            self._route_to_internet(table, "service-way-out")
        subnets = {}
        cidrs = addresses.service_subnets(self._spec)
        for number, (zone, cidr) in enumerate(zip(self._spec.zones, cidrs, strict=True)):
            subnet = aws.Subnet(
                self._stack,
                f"service-subnet-{zone}",
                vpc_id=self.id,
                availability_zone=zone,
                cidr_block=str(cidr),
                map_public_ip_on_launch=False,
                ipv6_cidr_block=self._ipv6_cidr(addresses.MAX_ZONES + number),
                assign_ipv6_address_on_creation=self._spec.network.ipv6 or None,
                tags=self._stack.named(f"services-{zone}", ROLE=names.SERVICE_SUBNET),
            )
            aws.RouteTableAssociation(
                self._stack,
                f"service-routes-{zone}",
                route_table_id=table.id,
                subnet_id=subnet.id,
            )
            subnets[zone] = subnet.id
        return subnets

    def _nat_routes(self, services: dict[str, str], tables: dict[str, aws.RouteTable]) -> None:
        """A route out of each zone, through its own NAT gateway or the first zone's."""
        is_single = self._spec.network.nat == "single"
        zones = self._spec.zones[:1] if is_single else self._spec.zones
        gateways = {zone: self._nat_gateway(zone, services[zone]) for zone in zones}
        for zone, table in tables.items():
            aws.Route(
                self._stack,
                f"way-out-{zone}",
                route_table_id=table.id,
                destination_cidr_block=ANYWHERE,
                nat_gateway_id=gateways.get(zone, gateways[zones[0]]).id,
            )
        if self._spec.network.ipv6:
            self._ipv6_way_out(tables)

    def _nat_gateway(self, zone: str, subnet_id: str) -> aws.NatGateway:
        address = aws.Eip(
            self._stack,
            f"nat-address-{zone}",
            domain="vpc",
            tags=self._stack.named(f"nat-{zone}"),
            depends_on=[self._gateway],
        )
        return aws.NatGateway(
            self._stack,
            f"nat-{zone}",
            allocation_id=address.id,
            subnet_id=subnet_id,
            tags=self._stack.named(f"nat-{zone}"),
            depends_on=[self._gateway],
        )

    def _ipv6_way_out(self, tables: dict[str, aws.RouteTable]) -> None:
        gateway = aws.EgressOnlyInternetGateway(
            self._stack, "ipv6-gateway", vpc_id=self.id, tags=self._stack.named("ipv6-gateway")
        )
        for zone, table in tables.items():
            aws.Route(
                self._stack,
                f"ipv6-way-out-{zone}",
                route_table_id=table.id,
                destination_ipv6_cidr_block=ANYWHERE_IPV6,
                egress_only_gateway_id=gateway.id,
            )

    def _s3_endpoint(self, tables: list[aws.RouteTable]) -> None:
        aws.VpcEndpoint(
            self._stack,
            "s3-endpoint",
            vpc_id=self.id,
            vpc_endpoint_type="Gateway",
            service_name=endpoints.service_name(self._spec.region, "s3").removeprefix("cn."),
            route_table_ids=[table.id for table in tables],
            tags=self._stack.named("s3-endpoint"),
        )

    def add_interface_endpoints(self, group_id: str) -> None:
        """The endpoints of the services that masters call; machines use their usual names."""
        for service in endpoints.interface_endpoints(self._spec):
            name = service.replace(".", "-")
            aws.VpcEndpoint(
                self._stack,
                f"{name}-endpoint",
                vpc_id=self.id,
                vpc_endpoint_type="Interface",
                service_name=endpoints.service_name(self._spec.region, service),
                subnet_ids=list(self.service_subnets.values()),
                security_group_ids=[group_id],
                private_dns_enabled=True,
                tags=self._stack.named(f"{name}-endpoint"),
            )

    # --- parts

    def _table(self, name: str) -> aws.RouteTable:
        tags = self._stack.named(name)
        return aws.RouteTable(self._stack, name, vpc_id=self.id, tags=tags)

    def _route_to_internet(self, table: aws.RouteTable, name: str) -> None:
        gateway_id = self._gateway.id if self._gateway else None
        aws.Route(
            self._stack,
            name,
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway_id,
        )
        if self._spec.network.ipv6:
            aws.Route(
                self._stack,
                f"ipv6-{name}",
                route_table_id=table.id,
                destination_ipv6_cidr_block=ANYWHERE_IPV6,
                gateway_id=gateway_id,
            )

    def _machine_subnets(self, tables: dict[str, aws.RouteTable]) -> dict[str, str]:
        """The machines' subnets by zone, with the addresses that only masters get."""
        subnets = {}
        cidrs = addresses.subnets(self._spec)
        for number, (zone, cidr) in enumerate(zip(self._spec.zones, cidrs, strict=True)):
            subnet = aws.Subnet(
                self._stack,
                f"subnet-{zone}",
                vpc_id=self.id,
                availability_zone=zone,
                cidr_block=str(cidr),
                map_public_ip_on_launch=self._spec.network.mode == "public",
                ipv6_cidr_block=self._ipv6_cidr(number),
                assign_ipv6_address_on_creation=self._spec.network.ipv6 or None,
                tags=self._stack.named(zone),
            )
            aws.Ec2SubnetCidrReservation(
                self._stack,
                f"masters-{zone}",
                subnet_id=subnet.id,
                cidr_block=str(addresses.reserved_for_masters(cidr)),
                reservation_type="explicit",
            )
            aws.RouteTableAssociation(
                self._stack,
                f"routes-{zone}" if self._spec.network.mode == "public" else f"way-of-{zone}",
                route_table_id=tables[zone].id,
                subnet_id=subnet.id,
            )
            subnets[zone] = subnet.id
        return subnets

    def _ipv6_cidr(self, number: int) -> Call | None:
        """A subnet's IPv6 network; none without IPv6."""
        if not self._spec.network.ipv6:
            return None
        return divide_cidr(self._vpc.ipv6_cidr_block, IPV6_SUBNET_BITS, number)

    # --- flow logs

    def _flow_logs(self) -> None:
        stack, spec = self._stack, self._spec
        account_id = aws.DataAwsCallerIdentity(stack, "account").account_id
        if spec.network.flow_logs == "s3":
            bucket = names.bucket_name(account_id, spec.region)
            destination = f"arn:{iam.partition(spec.region)}:s3:::{bucket}/{spec.name}/flow-logs/"
            kind, role = "s3", None
        else:
            kind = "cloud-watch-logs"
            destination, role = self._log_group(account_id)
        aws.FlowLog(
            stack,
            "flow-log",
            vpc_id=self.id,
            traffic_type="ALL",
            log_destination_type=kind,
            log_destination=destination,
            iam_role_arn=role,
            tags=stack.named("flow-log"),
        )

    def _log_group(self, account_id: str) -> tuple[str, str]:
        """The ARNs of the log group of the flow logs, and of the role that writes into it."""
        stack, spec = self._stack, self._spec
        group = aws.CloudwatchLogGroup(
            stack,
            "flow-log-group",
            name=names.flow_log_group_name(spec.name),
            retention_in_days=spec.network.flow_log_days,
            tags=stack.named("flow-logs"),
        )
        role = aws.IamRole(
            stack,
            "flow-log-role",
            name=iam.role_name(spec.name, spec.region, "flow-logs"),
            assume_role_policy=json.dumps(iam.flow_log_trust_document(account_id)),
            path=spec.account.iam_path,
            permissions_boundary=spec.account.permissions_boundary,
            tags=stack.named("flow-logs"),
        )
        document = iam.flow_log_document(spec.name, spec.region, account_id)
        aws.IamRolePolicy(
            stack, "flow-log-rights", name="mesaform", role=role.id, policy=json.dumps(document)
        )
        return group.arn, role.arn
