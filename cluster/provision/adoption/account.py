"""Search of the account for the resources of a deployment that a stack declares.

A resource with tags must carry this deployment's id. A kind without tags belongs to the deployment
if its parent does: a rule to its security group, a route to its table. Calls block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesaform.aws.client import client
from mesaform.aws.resources.kind import call, pages, tag_map
from mesaform.common.errors import NotFound
from mesaform.provision.adoption.declared import Declared
from mesaform.topology.names import Tag

ALIVE_STATES = ("pending", "running", "stopping", "stopped")
Raw = Mapping[str, Any]


@dataclass(slots=True)
class Search:
    """One search. `ids` are the ids found so far, by the addresses of the stack under way."""

    region: str
    deployment_id: str
    ids: dict[str, str] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        return client(service, self.region)

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether tags carry the deployment's id."""
        return tags.get(Tag.DEPLOYMENT) == self.deployment_id

    def tagged(
        self,
        declared: Declared,
        operation: str,
        key: str,
        *,
        argument: str = "Filters",
        **filters: Iterable[str],
    ) -> list[Raw]:
        """Resources of EC2 with the deployment's id and the declared name.

        `argument` is the one of the operation that takes filters.
        """
        wanted = {
            f"tag:{Tag.DEPLOYMENT}": [self.deployment_id],
            f"tag:{Tag.NAME}": [declared.tag_name],
            **{name.replace("_", "-"): list(values) for name, values in filters.items()},
        }
        listed = [{"Name": name, "Values": values} for name, values in wanted.items()]
        where = f"find {declared.address}"
        answers = pages(self.client("ec2"), operation, where, **{argument: listed})
        return [raw for answer in answers for raw in answer[key]]


Finder = Callable[[Declared, Search], str]
"""Returns the id with which Terraform imports the declared resource; empty if there is none."""


def find_import_id(declared: Declared, search: Search) -> str:
    """The id with which Terraform imports a declared resource; empty if the account has none.

    Raises:
        CloudError: AWS did not answer.
        LookupError: this program cannot adopt resources of this kind.

    """
    try:
        finder = FINDERS[declared.kind]
    except KeyError:
        raise LookupError(declared.kind) from None
    try:
        return finder(declared, search)
    except NotFound:
        return ""


def _first(raws: Iterable[Raw], key: str) -> str:
    return next((str(raw[key]) for raw in raws), "")


def _by_name(operation: str, key: str, id_key: str) -> Finder:
    """A finder of a kind of EC2 that carries the tag `Name`."""

    def find(declared: Declared, search: Search) -> str:
        return _first(search.tagged(declared, operation, key), id_key)

    return find


def _instance(declared: Declared, search: Search) -> str:
    """The machine of this name; of several the one at the declared address, else the oldest."""
    reservations = search.tagged(
        declared, "describe_instances", "Reservations", instance_state_name=ALIVE_STATES
    )
    machines = [machine for reservation in reservations for machine in reservation["Instances"]]
    address = declared.text("private_ip")
    machines.sort(key=lambda raw: (raw.get("PrivateIpAddress") != address, raw["LaunchTime"]))
    return _first(machines, "InstanceId")


def _volume(declared: Declared, search: Search) -> str:
    """The volume of this name; of several one that a machine uses, else the oldest."""
    volumes = search.tagged(declared, "describe_volumes", "Volumes")
    volumes.sort(key=lambda raw: (raw.get("State") != "in-use", raw["CreateTime"]))
    return _first(volumes, "VolumeId")


def _default_group(declared: Declared, search: Search) -> str:
    vpc = declared.referred("vpc_id", search.ids)
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    answer = call(search.client("ec2"), "describe_security_groups", vpc, Filters=filters)
    return _first(answer["SecurityGroups"], "GroupId") if vpc else ""


def _rule(declared: Declared, search: Search) -> str:
    """A rule of a security group, by what it allows: a rule that AWS made itself has no name."""
    group = declared.referred("security_group_id", search.ids)
    if not group:
        return ""
    filters = [{"Name": "group-id", "Values": [group]}]
    answers = pages(search.client("ec2"), "describe_security_group_rules", group, Filters=filters)
    rules = (raw for answer in answers for raw in answer["SecurityGroupRules"])
    wanted = _declared_rule(declared, search)
    return _first((raw for raw in rules if _rule_of(raw) == wanted), "SecurityGroupRuleId")


def _declared_rule(declared: Declared, search: Search) -> tuple[object, ...]:
    is_egress = declared.kind == "aws_vpc_security_group_egress_rule"
    ports = [declared.attributes.get(key) for key in ("from_port", "to_port")]
    cidr = declared.text("cidr_ipv4") or declared.text("cidr_ipv6")
    source = cidr or declared.referred("referenced_security_group_id", search.ids)
    return (is_egress, declared.text("ip_protocol"), *_ports(*ports), source)


def _rule_of(raw: Raw) -> tuple[object, ...]:
    cidr = raw.get("CidrIpv4") or raw.get("CidrIpv6")
    source = cidr or raw.get("ReferencedGroupInfo", {}).get("GroupId", "")
    ports = _ports(raw.get("FromPort"), raw.get("ToPort"))
    return (raw["IsEgress"], str(raw["IpProtocol"]), *ports, source)


def _ports(first: object, last: object) -> tuple[int, int]:
    """The range of ports; AWS writes -1 for "all", Terraform nothing."""
    return tuple(-1 if port is None else int(str(port)) for port in (first, last))  # type: ignore[return-value] # of two


def _route(declared: Declared, search: Search) -> str:
    table = declared.referred("route_table_id", search.ids)
    ipv4, ipv6 = (declared.text(f"destination_{kind}cidr_block") for kind in ("", "ipv6_"))
    destinations = {
        route.get("DestinationCidrBlock") or route.get("DestinationIpv6CidrBlock")
        for route in _table(table, search).get("Routes", ())
    }
    return f"{table}_{ipv4 or ipv6}" if (ipv4 or ipv6) in destinations else ""


def _route_association(declared: Declared, search: Search) -> str:
    table = declared.referred("route_table_id", search.ids)
    subnet = declared.referred("subnet_id", search.ids)
    associations = _table(table, search).get("Associations", ())
    is_present = any(subnet and raw.get("SubnetId") == subnet for raw in associations)
    return f"{subnet}/{table}" if is_present else ""


def _table(table: str, search: Search) -> Raw:
    if not table:
        return {}
    answer = call(search.client("ec2"), "describe_route_tables", table, RouteTableIds=[table])
    return next(iter(answer["RouteTables"]), {})


def _reservation(declared: Declared, search: Search) -> str:
    subnet = declared.referred("subnet_id", search.ids)
    if not subnet:
        return ""
    answer = call(search.client("ec2"), "get_subnet_cidr_reservations", subnet, SubnetId=subnet)
    blocks = answer.get("SubnetIpv4CidrReservations", ())
    wanted = declared.text("cidr_block")
    reservation = _first(
        (raw for raw in blocks if raw["Cidr"] == wanted), "SubnetCidrReservationId"
    )
    return f"{subnet}:{reservation}" if reservation else ""


def _nat_gateway(declared: Declared, search: Search) -> str:
    """EC2 lists a deleted gateway for an hour."""
    alive = search.tagged(
        declared,
        "describe_nat_gateways",
        "NatGateways",
        argument="Filter",
        state=("pending", "available"),
    )
    return _first(alive, "NatGatewayId")


def _vpc_endpoint(declared: Declared, search: Search) -> str:
    listed = search.tagged(declared, "describe_vpc_endpoints", "VpcEndpoints")
    alive = (raw for raw in listed if str(raw.get("State")).lower() not in {"deleting", "deleted"})
    return _first(alive, "VpcEndpointId")


def _flow_log(declared: Declared, search: Search) -> str:
    listed = search.tagged(declared, "describe_flow_logs", "FlowLogs", argument="Filter")
    return _first(listed, "FlowLogId")


def _log_group(declared: Declared, search: Search) -> str:
    logs, name = search.client("logs"), declared.text("name")
    listed = pages(logs, "describe_log_groups", name, logGroupNamePrefix=name)
    groups = (raw for page in listed for raw in page["logGroups"] if raw["logGroupName"] == name)
    arn = _first(groups, "arn").removesuffix(":*")
    if not arn:
        return ""
    tags = call(logs, "list_tags_for_resource", name, resourceArn=arn)["tags"]
    return name if search.owns(tags) else ""


def _load_balancer(declared: Declared, search: Search) -> str:
    name = declared.text("name")
    answer = call(search.client("elbv2"), "describe_load_balancers", name, Names=[name])
    return _owned_arn(_first(answer["LoadBalancers"], "LoadBalancerArn"), search)


def _target_group(declared: Declared, search: Search) -> str:
    name = declared.text("name")
    answer = call(search.client("elbv2"), "describe_target_groups", name, Names=[name])
    return _owned_arn(_first(answer["TargetGroups"], "TargetGroupArn"), search)


def _listener(declared: Declared, search: Search) -> str:
    """The listener of a port: a load balancer has one at most."""
    balancer = declared.referred("load_balancer_arn", search.ids)
    if not balancer:
        return ""
    listed = pages(search.client("elbv2"), "describe_listeners", balancer, LoadBalancerArn=balancer)
    port = declared.text("port")
    of_port = (raw for page in listed for raw in page["Listeners"] if str(raw["Port"]) == port)
    return _owned_arn(_first(of_port, "ListenerArn"), search)


def _owned_arn(arn: str, search: Search) -> str:
    """The ARN of something of ELB if it carries the deployment's id; else nothing."""
    if not arn:
        return ""
    answer = call(search.client("elbv2"), "describe_tags", arn, ResourceArns=[arn])
    tags = tag_map(answer["TagDescriptions"][0]["Tags"])
    return arn if search.owns(tags) else ""


def _hosted_zone(declared: Declared, search: Search) -> str:
    route53, name = search.client("route53"), declared.text("name").rstrip(".") + "."
    answers = pages(route53, "list_hosted_zones", name)
    for raw in (zone for answer in answers for zone in answer["HostedZones"]):
        zone_id = raw["Id"].rpartition("/")[2]
        if raw["Name"] == name and search.owns(_zone_tags(route53, zone_id)):
            return str(zone_id)
    return ""


def _zone_tags(route53: Any, zone_id: str) -> dict[str, str]:
    arguments = {"ResourceType": "hostedzone", "ResourceId": zone_id}
    answer = call(route53, "list_tags_for_resource", zone_id, **arguments)
    return tag_map(answer["ResourceTagSet"]["Tags"])


def _record(declared: Declared, search: Search) -> str:
    """The record of a name and type in the cluster's zone."""
    zone = declared.referred("zone_id", search.ids)
    name, kind = declared.text("name"), declared.text("type")
    if not zone:
        return ""
    listed = pages(search.client("route53"), "list_resource_record_sets", zone, HostedZoneId=zone)
    records = (raw for page in listed for raw in page["ResourceRecordSets"])
    is_present = any(
        raw["Name"].rstrip(".") == name.rstrip(".") and raw["Type"] == kind for raw in records
    )
    return f"{zone}_{name}_{kind}" if is_present else ""


def _iam_role(declared: Declared, search: Search) -> str:
    name = declared.text("name")
    answer = call(search.client("iam"), "list_role_tags", name, RoleName=name)
    return name if search.owns(tag_map(answer.get("Tags"))) else ""


def _iam_role_policy(declared: Declared, search: Search) -> str:
    role, name = declared.referred("role", search.ids), declared.text("name")
    if not role:
        return ""
    call(search.client("iam"), "get_role_policy", role, RoleName=role, PolicyName=name)
    return f"{role}:{name}"


def _instance_profile(declared: Declared, search: Search) -> str:
    name = declared.text("name")
    answer = call(search.client("iam"), "get_instance_profile", name, InstanceProfileName=name)
    return name if search.owns(tag_map(answer["InstanceProfile"].get("Tags"))) else ""


def _queue(declared: Declared, search: Search) -> str:
    sqs, name = search.client("sqs"), declared.text("name")
    url = str(call(sqs, "get_queue_url", name, QueueName=name)["QueueUrl"])
    tags = call(sqs, "list_queue_tags", name, QueueUrl=url).get("Tags", {})
    return url if search.owns(tags) else ""


def _event_rule(declared: Declared, search: Search) -> str:
    events, name = search.client("events"), declared.text("name")
    arn = call(events, "describe_rule", name, Name=name)["Arn"]
    tags = call(events, "list_tags_for_resource", name, ResourceARN=arn)["Tags"]
    return name if search.owns(tag_map(tags)) else ""


def _event_target(declared: Declared, search: Search) -> str:
    rule, target = declared.referred("rule", search.ids), declared.text("target_id")
    if not rule:
        return ""
    answer = call(search.client("events"), "list_targets_by_rule", rule, Rule=rule)
    is_present = any(raw["Id"] == target for raw in answer.get("Targets", ()))
    return f"{rule}/{target}" if is_present else ""


def _parameter(declared: Declared, search: Search) -> str:
    ssm, name = search.client("ssm"), declared.text("name")
    call(ssm, "get_parameter", name, Name=name)
    answer = call(ssm, "list_tags_for_resource", name, ResourceType="Parameter", ResourceId=name)
    return name if search.owns(tag_map(answer.get("TagList"))) else ""


FINDERS: Mapping[str, Finder] = {
    "aws_vpc": _by_name("describe_vpcs", "Vpcs", "VpcId"),
    "aws_internet_gateway": _by_name(
        "describe_internet_gateways", "InternetGateways", "InternetGatewayId"
    ),
    "aws_egress_only_internet_gateway": _by_name(
        "describe_egress_only_internet_gateways",
        "EgressOnlyInternetGateways",
        "EgressOnlyInternetGatewayId",
    ),
    "aws_route_table": _by_name("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws_route": _route,
    "aws_ebs_volume": _volume,
    "aws_subnet": _by_name("describe_subnets", "Subnets", "SubnetId"),
    "aws_ec2_subnet_cidr_reservation": _reservation,
    "aws_route_table_association": _route_association,
    "aws_default_security_group": _default_group,
    "aws_security_group": _by_name("describe_security_groups", "SecurityGroups", "GroupId"),
    "aws_vpc_security_group_egress_rule": _rule,
    "aws_vpc_security_group_ingress_rule": _rule,
    "aws_eip": _by_name("describe_addresses", "Addresses", "AllocationId"),
    "aws_nat_gateway": _nat_gateway,
    "aws_vpc_endpoint": _vpc_endpoint,
    "aws_network_interface": _by_name(
        "describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"
    ),
    "aws_lb": _load_balancer,
    "aws_lb_target_group": _target_group,
    "aws_lb_listener": _listener,
    "aws_route53_zone": _hosted_zone,
    "aws_route53_record": _record,
    "aws_cloudwatch_log_group": _log_group,
    "aws_flow_log": _flow_log,
    "aws_sqs_queue": _queue,
    "aws_cloudwatch_event_rule": _event_rule,
    "aws_cloudwatch_event_target": _event_target,
    "aws_iam_role": _iam_role,
    "aws_iam_role_policy": _iam_role_policy,
    "aws_iam_instance_profile": _instance_profile,
    "aws_instance": _instance,
    "aws_launch_template": _by_name(
        "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"
    ),
    "aws_ssm_parameter": _parameter,
}
"""How each kind is found, in an order in which parents come before their children."""

NOT_IMPORTED = frozenset({"aws_lb_target_group_attachment"})
"""Kinds that Terraform cannot import. To create one that exists changes nothing."""


def in_search_order(declared: Iterable[Declared]) -> Iterator[Declared]:
    """Sort resources so that each follows the resources that it refers to."""
    order = {kind: number for number, kind in enumerate(FINDERS)}
    yield from sorted(
        declared, key=lambda resource: (order.get(resource.kind, len(order)), resource.name)
    )
