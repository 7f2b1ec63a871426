"""A Network Load Balancer in front of the operators' ports of the masters.

Targets are the masters' addresses, so that the replacement of a master changes nothing here. With a
certificate the load balancer ends TLS, and speaks TLS to the masters where the cluster has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.topology import names
from mesaform.topology.ports import OPERATOR_PORTS, Port
from mesaform_stacks import provider as aws
from mesaform_stacks.base import ClusterStack

TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
"""TLS 1.2 and 1.3 (ELB guide, "Security policies for your Network Load Balancer")."""

HEALTH_PATHS = {
    Port.ENGINE_MASTER: "/health",
    Port.SERVICES: "/ping",
    Port.AUTOSCALER: "/health",
}
"""Paths that every master answers itself. Standbys are healthy: they pass requests on."""

MESOS_LEADER_PATH = "/roles"
"""Standbys of Apache Mesos redirect to private addresses. Only the leader answers 200 here."""


class LoadBalancer:
    """Exposes `dns_name`."""

    def __init__(
        self,
        stack: ClusterStack,
        vpc_id: str,
        subnet_ids: Sequence[str],
        group_id: str,
        master_addresses: Sequence[str],
    ) -> None:
        self._stack = stack
        self._vpc_id = vpc_id
        self._master_addresses = master_addresses
        wanted = stack.spec.network.load_balancer
        self._certificate = wanted.certificate_arn if wanted else None
        balancer = aws.Lb(
            stack,
            "balancer",
            name=names.load_balancer_name(stack.spec.name),
            load_balancer_type="network",
            internal=stack.spec.network.is_balancer_internal,
            subnets=list(subnet_ids),
            security_groups=[group_id],
            enable_cross_zone_load_balancing=True,
            tags=stack.named("load-balancer"),
        )
        self.dns_name: str = balancer.dns_name
        for port in OPERATOR_PORTS:
            self._listener(balancer, port)

    def _listener(self, balancer: aws.Lb, port: int) -> None:
        group = self._target_group(port)
        aws.LbListener(
            self._stack,
            f"listener-{port}",
            load_balancer_arn=balancer.arn,
            port=port,
            protocol="TLS" if self._certificate else "TCP",
            certificate_arn=self._certificate,
            ssl_policy=TLS_POLICY if self._certificate else None,
            default_action=[
                aws.LbListenerDefaultAction(type="forward", target_group_arn=group.arn)
            ],
            tags=self._stack.named(f"listener-{port}"),
        )

    def _target_group(self, port: int) -> aws.LbTargetGroup:
        is_mesos = port == Port.ENGINE_MASTER and self._stack.spec.engine == "mesos"
        group = aws.LbTargetGroup(
            self._stack,
            f"targets-{port}",
            name=names.target_group_name(self._stack.spec.name, port),
            port=port,
            protocol="TLS" if self._certificate and self._stack.spec.tls else "TCP",
            target_type="ip",
            vpc_id=self._vpc_id,
            preserve_client_ip="true",
            deregistration_delay="30",
            health_check=aws.LbTargetGroupHealthCheck(
                protocol="HTTPS" if self._stack.spec.tls else "HTTP",
                path=MESOS_LEADER_PATH if is_mesos else HEALTH_PATHS[port],
                port=str(port),
                matcher="200",
                interval=10,
                healthy_threshold=2,
                unhealthy_threshold=2,
            ),
            tags=self._stack.named(f"targets-{port}"),
        )
        for number, address in enumerate(self._master_addresses, start=1):
            aws.LbTargetGroupAttachment(
                self._stack,
                f"target-{port}-{number}",
                target_group_arn=group.arn,
                target_id=address,
                port=port,
            )
        return group
