"""The instance metadata service, version 2: one server for all machines, each asked on its own address, port 1338.

Which machine asks is told by the address that was asked, as on AWS (there each machine sees its own 169.254.169.254).
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
from aiohttp import web

from mesaform.localcloud.layout import METADATA_PORT
from mesaform.localcloud.protocol import Credentials, Event, Machine

LONGEST_TOKEN_S = 21600
RENEW_BEFORE_S = 1800
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  # a header's name
NAMES_BELOW = {
    "": "ami-id\nhostname\niam/\ninstance-id\ninstance-life-cycle\ninstance-type\nlocal-hostname\nlocal-ipv4\nmac\nplacement/\npublic-ipv4",
    "placement": "availability-zone\nregion",
}


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def http_date(moment: float) -> str:
    """As AWS Health and scheduled events write it: `Sat, 21 Nov 2026 12:00:00 GMT`."""
    return format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)


class Metadata:
    """Answers for every machine given to `open`. `credentials` asks the endpoint for a role's credentials."""

    def __init__(
        self, credentials: Callable[[str], Awaitable[Credentials]], port: int = METADATA_PORT
    ) -> None:
        self._ask_credentials = credentials
        self._port = port
        self._machines: dict[str, Machine] = {}  # by address
        self._sites: dict[str, web.TCPSite] = {}
        self._tokens: dict[str, tuple[str, float]] = {}  # token -> address, end
        self._credentials: dict[str, Credentials] = {}  # by instance
        app = web.Application()
        app.router.add_put("/latest/api/token", self._token)
        app.router.add_get("/{path:.*}", self._get)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        await self._runner.setup()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def open(self, machine: Machine) -> None:
        """Listen on the machine's address. Idempotent.

        Raises:
            OSError: the address cannot be bound.

        """
        self._machines[machine.address] = machine
        if machine.address not in self._sites:
            site = web.TCPSite(self._runner, machine.address, self._port)
            await site.start()
            self._sites[machine.address] = site

    def listens_for(self, machine: Machine) -> bool:
        """Whether the machine can ask; a hypervisor that took machines over has to `open` for each."""
        known = self._machines.get(machine.address)
        return (
            known is not None
            and known.instance_id == machine.instance_id
            and machine.address in self._sites
        )

    def update(self, machine: Machine) -> None:
        """The machine's facts may have changed: tags, an interruption notice."""
        if (
            machine.address in self._machines
            and self._machines[machine.address].instance_id == machine.instance_id
        ):
            self._machines[machine.address] = machine

    async def close(self, instance_id: str) -> None:
        """Stop listening for the machine; its tokens end."""
        self._credentials.pop(instance_id, None)
        for address in [
            address
            for address, machine in self._machines.items()
            if machine.instance_id == instance_id
        ]:
            del self._machines[address]
            self._tokens = {
                token: (owner, end)
                for token, (owner, end) in self._tokens.items()
                if owner != address
            }
            if site := self._sites.pop(address, None):
                await site.stop()

    def _asked(self, request: web.Request) -> Machine:
        name = request.transport.get_extra_info("sockname") if request.transport else None
        machine = self._machines.get(name[0]) if name else None
        if machine is None:
            raise web.HTTPNotFound
        return machine

    async def _token(self, request: web.Request) -> web.Response:
        machine = self._asked(request)
        if "X-Forwarded-For" in request.headers:
            raise web.HTTPForbidden
        given = request.headers.get(TTL_HEADER, "")
        if not given.isdigit() or not 1 <= int(given) <= LONGEST_TOKEN_S:
            raise web.HTTPBadRequest
        now = time.monotonic()
        self._tokens = {
            token: (owner, end) for token, (owner, end) in self._tokens.items() if end > now
        }
        token = base64.b64encode(secrets.token_bytes(40)).decode()
        self._tokens[token] = (machine.address, now + int(given))
        return web.Response(text=token, headers={TTL_HEADER: given})

    def _require_token(self, request: web.Request, machine: Machine) -> None:
        token = request.headers.get(TOKEN_HEADER)
        if token is None and not machine.tokens_required:
            return
        owner, end = self._tokens.get(token or "", ("", 0.0))
        if owner != machine.address or end <= time.monotonic():
            raise web.HTTPUnauthorized

    async def _get(self, request: web.Request) -> web.Response:
        machine = self._asked(request)
        self._require_token(request, machine)
        version, _, path = request.match_info["path"].partition("/")
        if version not in {"latest", "2021-07-15"}:
            raise web.HTTPNotFound
        path = path.rstrip("/")
        if path == "user-data":
            if not machine.user_data:
                raise web.HTTPNotFound
            return web.Response(
                body=base64.b64decode(machine.user_data), content_type="application/octet-stream"
            )
        if path == "dynamic/instance-identity/document":
            return web.Response(text=_identity(machine))
        if path == "meta-data" or path.startswith("meta-data/"):
            return await self._meta(machine, path.removeprefix("meta-data").strip("/"))
        raise web.HTTPNotFound

    async def _meta(self, machine: Machine, path: str) -> web.Response:
        if path in NAMES_BELOW:
            return web.Response(text=NAMES_BELOW[path])
        if path.startswith("iam/"):
            return await self._iam(machine, path)
        if path.startswith(("spot/", "events/")):
            return web.Response(text=_notice(machine, path))
        text = (
            _tag(machine, path) if path.startswith("tags/instance") else _facts(machine).get(path)
        )
        if not text:
            raise web.HTTPNotFound
        return web.Response(text=text)

    async def _iam(self, machine: Machine, path: str) -> web.Response:
        if not machine.profile_arn:
            raise web.HTTPNotFound
        if path == "iam/info":
            info = {
                "Code": "Success",
                "LastUpdated": iso(time.time()),
                "InstanceProfileArn": machine.profile_arn,
            }
            return web.json_response({**info, "InstanceProfileId": machine.profile_id})
        found = await self._credentials_of(machine)
        if path == "iam/security-credentials":
            return web.Response(text=found.role_name)
        if path != f"iam/security-credentials/{found.role_name}":
            raise web.HTTPNotFound
        return web.json_response(
            {
                "Code": "Success",
                "LastUpdated": iso(time.time()),
                "Type": "AWS-HMAC",
                "AccessKeyId": found.access_key_id,
                "SecretAccessKey": found.secret_access_key,
                "Token": found.session_token,
                "Expiration": iso(found.expires_at),
            },
            content_type="text/plain",
        )

    async def _credentials_of(self, machine: Machine) -> Credentials:
        found = self._credentials.get(machine.instance_id)
        if found is None or found.expires_at - RENEW_BEFORE_S < time.time():
            try:
                found = await self._ask_credentials(machine.instance_id)
            except LookupError:
                raise web.HTTPNotFound from None
            self._credentials[machine.instance_id] = found
        return found


def _facts(machine: Machine) -> dict[str, str]:
    name = "ip-" + machine.address.replace(".", "-")
    domain = (
        "ec2.internal" if machine.region == "us-east-1" else f"{machine.region}.compute.internal"
    )
    return {
        "ami-id": machine.image_id,
        "hostname": f"{name}.{domain}",
        "local-hostname": f"{name}.{domain}",
        "instance-id": machine.instance_id,
        "instance-type": machine.instance_type,
        "instance-life-cycle": machine.lifecycle,
        "local-ipv4": machine.address,
        "public-ipv4": machine.public_address,
        "placement/availability-zone": machine.zone,
        "placement/region": machine.region,
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
    }


def _notice(machine: Machine, path: str) -> str:
    notice = machine.notice
    if path == "events/maintenance/scheduled":
        return msgspec.json.encode([_scheduled(event) for event in machine.events]).decode()
    if path == "events/recommendations/rebalance" and (machine.rebalance_at or notice):
        return msgspec.json.encode(
            {"noticeTime": iso(machine.rebalance_at or (notice.at if notice else 0.0))}
        ).decode()
    if notice is None:
        raise web.HTTPNotFound
    if path == "spot/instance-action":
        return msgspec.json.encode({"action": notice.action, "time": iso(notice.at)}).decode()
    if path == "spot/termination-time":
        return iso(notice.at)
    raise web.HTTPNotFound


def _scheduled(event: Event) -> dict[str, str]:
    short = http_date(event.at).partition(", ")[2]
    told = {
        "NotBefore": short,
        "Code": event.code,
        "Description": f"scheduled {event.code}",
        "EventId": event.id,
        "State": "active",
    }
    return {**told, "NotAfter": short}


def _tag(machine: Machine, path: str) -> str | None:
    name = path.removeprefix("tags/instance").strip("/")
    return machine.metadata_tags.get(name) if name else "\n".join(machine.metadata_tags)


def _identity(machine: Machine) -> str:
    document: dict[str, Any] = {
        "accountId": machine.account_id,
        "architecture": "x86_64",
        "availabilityZone": machine.zone,
        "imageId": machine.image_id,
        "instanceId": machine.instance_id,
        "instanceType": machine.instance_type,
        "pendingTime": iso(machine.launched_at),
        "privateIp": machine.address,
        "region": machine.region,
        "version": "2017-09-30",
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode()
