"""A client of the instance metadata service, version 2: who this machine is and what it was told.

Small on purpose (boto3 would triple the node's memory). Calls block; the node makes them once, before it does anything else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from mesaform.node.model import Identity

DEFAULT_ENDPOINT = "http://169.254.169.254"
TOKEN_TTL_S = 21600
"""The longest a token may live."""

_TIMEOUT_S = 2.0
_PAUSE_S = (0.1, 0.2, 0.5, 1.0)


class MetadataUnavailable(Exception):
    """The service did not answer in the time given, or refuses for good; the message says which."""


class Metadata:
    """IMDSv2 at `endpoint`. While the service is not up (refused, silent, 5xx) a call tries again for `patience_s` seconds."""

    def __init__(
        self,
        endpoint: str,
        *,
        patience_s: float = 120.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(endpoint)
        self._endpoint = endpoint
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._prefix = parts.path.rstrip("/")
        self.patience_s = patience_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._token = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Metadata:
        """At the address that AWS's own tools would use."""
        return cls(environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or DEFAULT_ENDPOINT)

    def get(self, path: str) -> str | None:
        """The text below `/latest/`, or None where the service has nothing of that name.

        Raises:
            MetadataUnavailable: the service stayed away or forbids the question.

        """
        if not self._token:
            self._renew()
        status, body = self._ask(
            "GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": self._token}
        )
        if status == 401:
            self._renew()
            status, body = self._ask(
                "GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": self._token}
            )
        if status == 404:
            return None
        if status != 200:
            raise MetadataUnavailable(f"{self._endpoint}/latest/{path} answers {status}")
        return body

    def identity(self) -> Identity:
        """Who this machine is.

        Raises:
            MetadataUnavailable: the service stayed away, or lacks what every instance has.

        """
        return Identity(
            instance_id=self._required("meta-data/instance-id"),
            instance_type=self._required("meta-data/instance-type"),
            zone=self._required("meta-data/placement/availability-zone"),
            address=self._required("meta-data/local-ipv4"),
            lifecycle=self.get("meta-data/instance-life-cycle") or "on-demand",
        )

    def user_data(self) -> str:
        """What the machine was told.

        Raises:
            MetadataUnavailable: the service stayed away, or the machine was launched without user data.

        """
        return self._required("user-data")

    def _required(self, path: str) -> str:
        value = self.get(path)
        if value is None:
            raise MetadataUnavailable(
                f"{self._endpoint} has no {path}: this machine was not launched by mesaform"
            )
        return value

    def _renew(self) -> None:
        status, body = self._ask(
            "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
        )
        if status != 200:
            raise MetadataUnavailable(
                f"{self._endpoint} gives no token (answers {status}): is the metadata service enabled for this machine?"
            )
        self._token = body

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        give_up_at = self._monotonic() + self.patience_s
        attempt = 0
        while True:
            try:
                status, body = self._once(method, path, headers)
                problem = f"answers {status}"
            except (OSError, HTTPException) as error:
                status, body, problem = 0, "", str(error) or type(error).__name__
            if status and status < 500 and status != 429:
                return status, body
            pause_s = _PAUSE_S[min(attempt, len(_PAUSE_S) - 1)]
            if self._monotonic() + pause_s > give_up_at:
                raise MetadataUnavailable(
                    f"{self._endpoint} does not serve metadata within {self.patience_s:g} s: {problem}"
                )
            self._sleep(pause_s)
            attempt += 1

    def _once(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        connection = HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, self._prefix + path, headers=dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
