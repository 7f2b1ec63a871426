"""The operator's token for calls to the masters: from the environment, or from SSM."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from mesaform.cli.masters import masters_of
from mesaform.common.errors import ClusterUnreachable
from mesaform.http.login import OperatorLogin
from mesaform.topology.addresses import master_addresses
from mesaform.topology.ports import OPERATOR_PORTS

if TYPE_CHECKING:
    from mesaform.cli.context import Context

TOKEN_VARIABLE = "MESAFORM_TOKEN"  # noqa: S105  # the variable's name
"""The token of an operator who may not read the parameter."""


class StoredToken:
    """The cluster's token, read when it is first needed."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._token: str | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, was_refused: bool) -> str:
        """The token; empty where the cluster has none.

        Raises:
            CloudError: SSM refused or did not answer.

        """
        if given := os.environ.get(TOKEN_VARIABLE, "").strip():
            return given
        seen = self._token
        async with self._lock:
            if self._token is None or (was_refused and self._token == seen):
                self._token = await asyncio.to_thread(self._read)
        return self._token


def read_token(context: Context) -> str:
    """The token that clients send; empty where the cluster has none.

    Raises:
        CloudError: SSM refused or did not answer.
        MissingPrerequisite: no local cloud runs.
        BadInput: the parameter cannot be read.

    """
    from mesaform.aws.access_parameter import ACCESS_DOCUMENT
    from mesaform.aws.secure_parameter import SecureParameter

    context.enter_cloud()
    spec = context.spec
    document = SecureParameter(ACCESS_DOCUMENT, spec.name, spec.region).read()
    return document.tokens[0] if document is not None and document.tokens else ""


def operator_login(context: Context) -> OperatorLogin | None:
    """The login of a verb; None where the cluster asks for none."""
    spec = context.spec
    if not spec.access.needs_token:
        return None
    token = StoredToken(partial(read_token, context))
    return OperatorLogin(partial(_master_hosts, context), OPERATOR_PORTS, token, needs_tls=spec.tls)


def _master_hosts(context: Context) -> Collection[str]:
    """Private addresses of the masters, and those by which this machine reaches them."""
    hosts = {str(address) for address in master_addresses(context.spec)}
    if context.spec.target == "local":
        return hosts
    try:
        urls = masters_of(context)
    except ClusterUnreachable:
        return hosts
    return hosts | {url.partition("://")[2].rpartition(":")[0] for url in urls}
