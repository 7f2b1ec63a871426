"""Composition root of the operator's program: the ports of one cluster, each created on first use.

Every verb takes its ports from here. The environment must point at the cluster's cloud before a
port is used (`wire` does that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mesaform.common.errors import CloudError, MissingPrerequisite

if TYPE_CHECKING:
    import aiohttp

    from mesaform.aws.control import S3Control
    from mesaform.aws.fleet import AwsFleet
    from mesaform.aws.ledger import S3Ledger
    from mesaform.aws.pricing.market import Market
    from mesaform.aws.pricing.prices import Prices
    from mesaform.aws.rate_limiter import RateLimiter
    from mesaform.aws.set_aside import SetAsideObjects
    from mesaform.aws.snapshots import SnapshotObjects
    from mesaform.cli.context import Context
    from mesaform.mesos.operator import OperatorClient
    from mesaform.mesos.sandbox import Sandboxes


class Wiring:
    """Ports of one cluster. Modules of AWS are imported when a port is first used."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @cached_property
    def bucket(self) -> str:
        """Name of the account's bucket, which holds ledgers and fences.

        Raises:
            MissingPrerequisite: AWS rejected the credentials.

        """
        from mesaform.aws.client import account_bucket

        spec = self.context.spec
        try:
            return account_bucket(spec.region)
        except CloudError as error:
            fix = (
                "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                if spec.target == "aws"
                else "restart it: mesaform local stop"
            )
            raise MissingPrerequisite(
                f"AWS rejected the credentials: {error.what}", where=spec.target, fix=fix
            ) from error

    @cached_property
    def fleet(self) -> AwsFleet:
        """Machines of the cluster."""
        from mesaform.aws.fleet import AwsFleet

        return AwsFleet(self.context.spec.region)

    @cached_property
    def limiter(self) -> RateLimiter:
        """Pace of calls to EC2."""
        import time

        from mesaform.aws.rate_limiter import RateLimiter

        return RateLimiter(time.monotonic)

    @cached_property
    def market(self) -> Market:
        """Prices as the cluster's autoscaler last stored them, and current spot prices.

        List prices that are not stored are read from AWS.
        """
        import time

        from mesaform.aws.pricing.market import aws_market
        from mesaform.common.logs import print_events_to_stderr

        print_events_to_stderr()
        spec = self.context.spec
        return aws_market(
            spec.region, self.bucket, spec.name, self.limiter, time.time, reads_list=True
        )

    @cached_property
    def prices(self) -> Prices:
        """The prices of the cluster's region and types now; also stored for `validate`.

        Those that AWS does not tell are the book's.
        """
        from mesaform.cli.stored_prices import store_prices, stored_prices

        spec, state_dir = self.context.spec, self.context.state_dir
        try:
            market = self.market
        except MissingPrerequisite:
            return stored_prices(state_dir, spec.region)
        types = {name for pool in spec.agents for name in pool.types}
        market.refresh(sorted({spec.masters.type, *types}))
        store_prices(state_dir, market.cached)
        return market.prices()

    @cached_property
    def priced_fleet(self) -> AwsFleet:
        """Machines and offerings at the prices of `market`, which the caller refreshes."""
        from mesaform.aws.fleet import AwsFleet

        return AwsFleet(self.context.spec.region, self.market, self.limiter)

    @cached_property
    def control(self) -> S3Control:
        """Fence, heartbeat and overrides."""
        from mesaform.aws.control import S3Control

        spec = self.context.spec
        return S3Control(self.bucket, spec.name, spec.region)

    @cached_property
    def set_aside(self) -> SetAsideObjects:
        """Records in S3 that were set aside."""
        from mesaform.aws.set_aside import SetAsideObjects

        spec = self.context.spec
        return SetAsideObjects(self.bucket, spec.name, spec.region)

    @cached_property
    def snapshots(self) -> SnapshotObjects:
        """Snapshots of the state."""
        from mesaform.aws.snapshots import SnapshotObjects

        spec = self.context.spec
        return SnapshotObjects(self.bucket, spec.name, spec.region)

    @cached_property
    def ledger(self) -> S3Ledger:
        """Records that outlive the cluster."""
        from mesaform.aws.ledger import S3Ledger

        spec = self.context.spec
        return S3Ledger(self.bucket, spec.name, spec.region)

    @cached_property
    def masters(self) -> tuple[str, ...]:
        """Base URLs of the masters.

        Raises:
            ClusterUnreachable: the cluster was not raised from this folder.

        """
        from mesaform.cli.masters import masters_of

        return tuple(masters_of(self.context))

    def open_session(self) -> aiohttp.ClientSession:
        """A session for calls to the masters, with the operator's token where one is required.

        It verifies them against the cluster's CA where the cluster has TLS. The caller closes it.
        """
        from mesaform.cli.operator_login import operator_login
        from mesaform.cli.trust import cluster_trust
        from mesaform.http import open_session

        return open_session(operator_login(self.context), trust=cluster_trust(self.context))

    def operator(self, session: aiohttp.ClientSession) -> OperatorClient:
        """Client of the leading master's operator API.

        Raises:
            ClusterUnreachable: the cluster was not raised from this folder.

        """
        from mesaform.mesos.operator import OperatorClient

        return OperatorClient(list(self.masters), session)

    def sandboxes(self, session: aiohttp.ClientSession) -> Sandboxes:
        """Reader of tasks' files, through the services.

        Raises:
            ClusterUnreachable: the cluster was not raised from this folder.

        """
        from mesaform.cli.masters import services_of
        from mesaform.mesos.sandbox import Sandboxes

        return Sandboxes(services_of(self.context), session)

    @property
    def outputs_reader(self) -> Callable[[], Mapping[str, Any] | None]:
        """Reader of Terraform's outputs; None where the cluster has no state."""

        def read() -> Mapping[str, Any] | None:
            from dataclasses import asdict

            from mesaform.provision.terraform_state import outputs

            stack_outputs = outputs(self.context)
            return None if stack_outputs is None else asdict(stack_outputs)

        return read


def wire(context: Context) -> Wiring:
    """Point the environment at the cluster's cloud; the cluster's ports.

    On aws the folder's copies of the states are renewed, so that any checkout finds the masters.

    Raises:
        MissingPrerequisite: the target is local and no local cloud runs.
        NotOwned: the credentials are of another account than at the first `mesaform up`.

    """
    from mesaform.provision.shared_state import open_shared_state

    context.enter_cloud()
    if shared := open_shared_state(context):
        shared.pull()
    return Wiring(context)
