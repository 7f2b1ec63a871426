"""The instance metadata service, version 2: one server for all machines, on port 1338.

It listens on each machine's own address, and the address that was called identifies the machine. On
AWS every machine has the service at 169.254.169.254. Paths and forms: EC2 user guide, "Instance
metadata".
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from mesaform.localcloud import instance_identity
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import METADATA_PORT
from mesaform.localcloud.protocol import Credentials, Event, Machine
from mesaform.localcloud.timestamps import http_date, iso

log = structlog.get_logger(__name__)
MAX_TOKEN_S = 21600
"""The longest lifetime of a token; AWS's limit of six hours."""
RENEW_BEFORE_S = 1800
"""Credentials are replaced this long before they expire."""
VERSIONS = frozenset({"latest", "2021-07-15"})
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  # a header's name
LISTINGS = {
    "": "ami-id\nhostname\niam/\ninstance-id\ninstance-life-cycle\ninstance-type\n"
    "local-hostname\nlocal-ipv4\nmac\nplacement/\npublic-ipv4",
    "placement": "availability-zone\nregion",
}
"""What folders below `meta-data` list."""


class Metadata:
    """Answers for every machine given to `open`.

    `credentials` asks the endpoint for the credentials of an instance's role and raises LookupError
    if it has none.
    """

    def __init__(
        self,
        credentials: Callable[[str], Awaitable[Credentials]],
        identity: IdentityService,
        port: int = METADATA_PORT,
    ) -> None:
        self._ask_credentials = credentials
        self._identity = identity
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
        """Prepare the server. It listens only where `open` says."""
        await self._runner.setup()

    async def stop(self) -> None:
        """Stop listening everywhere."""
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
        """Whether the service listens for this machine; not so after a hypervisor's restart."""
        known = self._machines.get(machine.address)
        return (
            known is not None
            and known.instance_id == machine.instance_id
            and machine.address in self._sites
        )

    def update(self, machine: Machine) -> None:
        """Take changed facts of a machine: tags, an interruption notice."""
        if (
            machine.address in self._machines
            and self._machines[machine.address].instance_id == machine.instance_id
        ):
            self._machines[machine.address] = machine

    async def close(self, instance_id: str) -> None:
        """Stop listening for the machine; its tokens become invalid."""
        self._credentials.pop(instance_id, None)
        addresses = [
            address
            for address, machine in self._machines.items()
            if machine.instance_id == instance_id
        ]
        for address in addresses:
            del self._machines[address]
            self._tokens = {
                token: (owner, end)
                for token, (owner, end) in self._tokens.items()
                if owner != address
            }
            if site := self._sites.pop(address, None):
                await site.stop()

    def _machine_of(self, request: web.Request) -> Machine:
        name = request.transport.get_extra_info("sockname") if request.transport else None
        machine = self._machines.get(name[0]) if name else None
        if machine is None:
            raise web.HTTPNotFound
        return machine

    async def _token(self, request: web.Request) -> web.Response:
        machine = self._machine_of(request)
        if "X-Forwarded-For" in request.headers:
            raise web.HTTPForbidden
        given = request.headers.get(TTL_HEADER, "")
        if not given.isdigit() or not 1 <= int(given) <= MAX_TOKEN_S:
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
        machine = self._machine_of(request)
        self._require_token(request, machine)
        version, _, path = request.match_info["path"].partition("/")
        if version not in VERSIONS:
            raise web.HTTPNotFound
        path = path.rstrip("/")
        if path == "user-data" and machine.user_data:
            content = base64.b64decode(machine.user_data)
            return web.Response(body=content, content_type="application/octet-stream")
        if path.startswith("dynamic/"):
            return web.Response(text=self._signed_identity(machine, path))
        if path == "meta-data" or path.startswith("meta-data/"):
            return await self._meta(machine, path.removeprefix("meta-data").strip("/"))
        raise web.HTTPNotFound

    def _signed_identity(self, machine: Machine, path: str) -> str:
        if path == instance_identity.PATH:
            return "\n".join(instance_identity.FORMS)
        folder, _, form = path.rpartition("/")
        try:
            text = (
                self._identity.answer(machine, form) if folder == instance_identity.PATH else None
            )
        except OSError as error:
            log.warning("identity.unavailable", error=str(error))
            raise web.HTTPServiceUnavailable from None
        if text is None:
            raise web.HTTPNotFound
        return text

    async def _meta(self, machine: Machine, path: str) -> web.Response:
        if path in LISTINGS:
            return web.Response(text=LISTINGS[path])
        if path.startswith("iam/"):
            return await self._iam(machine, path)
        if path.startswith(("spot/", "events/")):
            return web.Response(text=_announcement(machine, path))
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
        credentials = await self._credentials_of(machine)
        if path == "iam/security-credentials":
            return web.Response(text=credentials.role_name)
        if path != f"iam/security-credentials/{credentials.role_name}":
            raise web.HTTPNotFound
        return web.json_response(
            {
                "Code": "Success",
                "LastUpdated": iso(time.time()),
                "Type": "AWS-HMAC",
                "AccessKeyId": credentials.access_key_id,
                "SecretAccessKey": credentials.secret_access_key,
                "Token": credentials.session_token,
                "Expiration": iso(credentials.expires_at),
            },
            content_type="text/plain",
        )

    async def _credentials_of(self, machine: Machine) -> Credentials:
        credentials = self._credentials.get(machine.instance_id)
        if credentials is None or credentials.expires_at - RENEW_BEFORE_S < time.time():
            try:
                credentials = await self._ask_credentials(machine.instance_id)
            except LookupError:
                raise web.HTTPNotFound from None
            self._credentials[machine.instance_id] = credentials
        return credentials


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


def _announcement(machine: Machine, path: str) -> str:
    """What is announced to the machine below `spot/` and `events/`.

    Raises:
        web.HTTPNotFound: nothing is, or there is no such path.

    """
    notice = machine.notice
    if path == "events/maintenance/scheduled":
        return msgspec.json.encode([_scheduled(event) for event in machine.events]).decode()
    if path == "events/recommendations/rebalance":
        return _rebalance(machine)
    if notice is not None and path == "spot/instance-action":
        return msgspec.json.encode({"action": notice.action, "time": iso(notice.at)}).decode()
    if notice is not None and path == "spot/termination-time":
        return iso(notice.at)
    raise web.HTTPNotFound


def _rebalance(machine: Machine) -> str:
    """The recommendation; an interruption notice implies it."""
    at = machine.rebalance_at or (machine.notice.at if machine.notice else 0.0)
    if not at:
        raise web.HTTPNotFound
    return msgspec.json.encode({"noticeTime": iso(at)}).decode()


def _scheduled(event: Event) -> dict[str, str]:
    at = http_date(event.at).partition(", ")[2]
    return {
        "NotBefore": at,
        "Code": event.code,
        "Description": f"scheduled {event.code}",
        "EventId": event.id,
        "State": "active",
        "NotAfter": at,
    }


def _tag(machine: Machine, path: str) -> str | None:
    name = path.removeprefix("tags/instance").strip("/")
    return machine.metadata_tags.get(name) if name else "\n".join(machine.metadata_tags)
