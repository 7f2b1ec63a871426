"""Client of the EC2 instance metadata service, version 2: the machine's identity and user data.

Without boto3, which would triple the node's memory. Calls block; the node makes them once,
before it starts its services.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import msgspec

from mesaform.common.backoff import Backoff
from mesaform.node.model import Identity
from mesaform.topology.instance_identity import SignedIdentity

DEFAULT_ENDPOINT = "http://169.254.169.254"
IDENTITY = "dynamic/instance-identity/document"
IDENTITY_SIGNATURE = "dynamic/instance-identity/signature"
TOKEN_TTL_S = 21600
"""The longest lifetime of a token that AWS allows."""

_TIMEOUT_S = 2.0
_BACKOFF = Backoff(first_s=0.1, cap_s=1.0)
_HEADER = "X-aws-ec2-metadata-token"


class MetadataUnavailable(Exception):
    """The service did not answer in time, or it refuses; the message says which."""


class Metadata:
    """IMDSv2 at `endpoint`.

    A call that is refused, not answered or answered with 5xx is repeated for `retry_for_s` seconds.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        retry_for_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(endpoint)
        self._endpoint = endpoint
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._prefix = parts.path.rstrip("/")
        self.retry_for_s = retry_for_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._token = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Metadata:
        """A client for the endpoint that AWS's own tools use."""
        return cls(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or DEFAULT_ENDPOINT)

    @property
    def endpoint(self) -> str:
        """The base URL of the service."""
        return self._endpoint

    def get(self, path: str) -> str | None:
        """The text of `/latest/<path>`, or None where the service has no such path.

        Raises:
            MetadataUnavailable: the service does not answer or refuses the request.

        """
        if not self._token:
            self._renew_token()
        status, body = self._request("GET", f"/latest/{path}", {_HEADER: self._token})
        if status == 401:
            self._renew_token()
            status, body = self._request("GET", f"/latest/{path}", {_HEADER: self._token})
        if status == 404:
            return None
        if status != 200:
            raise MetadataUnavailable(f"{self._endpoint}/latest/{path} answers {status}")
        return body

    def identity(self) -> Identity:
        """The machine's id, type, zone, address and lifecycle.

        Raises:
            MetadataUnavailable: the service does not answer, or lacks a path of every instance.

        """
        return Identity(
            instance_id=self._required("meta-data/instance-id"),
            instance_type=self._required("meta-data/instance-type"),
            zone=self._required("meta-data/placement/availability-zone"),
            address=self._required("meta-data/local-ipv4"),
            lifecycle=self.get("meta-data/instance-life-cycle") or "on-demand",
            account_id=self._account_id(),
            proof=self._proof(),
            public_address=self.get("meta-data/public-ipv4") or "",
        )

    def _proof(self) -> SignedIdentity | None:
        document, signature = self.get(IDENTITY), self.get(IDENTITY_SIGNATURE)
        if document is None or signature is None:
            return None
        return SignedIdentity(document, signature)

    def _account_id(self) -> str:
        try:
            document = msgspec.json.decode(self.get(IDENTITY) or "{}", type=dict[str, object])
        except msgspec.DecodeError:
            return ""
        return str(document.get("accountId") or "")

    def user_data(self) -> str:
        """The machine's user data.

        Raises:
            MetadataUnavailable: the service does not answer, or the machine has no user data.

        """
        return self._required("user-data")

    def _required(self, path: str) -> str:
        value = self.get(path)
        if value is None:
            raise MetadataUnavailable(
                f"{self._endpoint} has no {path}: this machine was not launched by mesaform"
            )
        return value

    def _renew_token(self) -> None:
        headers = {f"{_HEADER}-ttl-seconds": str(TOKEN_TTL_S)}
        status, body = self._request("PUT", "/latest/api/token", headers)
        if status != 200:
            raise MetadataUnavailable(
                f"{self._endpoint} gives no token (answers {status}):"
                " is the metadata service enabled for this machine?"
            )
        self._token = body

    def _request(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status and body of the first answer that is final, with retries until then."""
        give_up_at = self._monotonic() + self.retry_for_s
        failures = 0
        while True:
            try:
                status, body = self._send(method, path, headers)
                if status < 500 and status != 429:
                    return status, body
                problem = f"answers {status}"
            except (OSError, HTTPException) as error:
                problem = str(error) or type(error).__name__
            failures += 1
            pause_s = _BACKOFF.delay_s(failures)
            if self._monotonic() + pause_s > give_up_at:
                raise MetadataUnavailable(
                    f"{self._endpoint} does not serve metadata within {self.retry_for_s:g} s:"
                    f" {problem}"
                )
            self._sleep(pause_s)

    def _send(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, self._prefix + path, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()
