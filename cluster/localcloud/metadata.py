"""The instance metadata service, version 2: one server for all machines, on port 1338.

It listens on each machine's own address, and the address that was called identifies the machine. On
AWS every machine has the service at 169.254.169.254. Paths and forms: EC2 user guide, "Instance
metadata".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import msgspec
import structlog
from aiohttp import web

from mesaform.http import HttpPort, HttpServer, Limits
from mesaform.localcloud import instance_identity
from mesaform.localcloud.instance_identity import IdentityService
from mesaform.localcloud.layout import METADATA_PORT
from mesaform.localcloud.peer_users import peer_user
from mesaform.localcloud.protocol import Credentials, Event, Machine
from mesaform.localcloud.timestamps import http_date, iso

log = structlog.get_logger(__name__)
MAX_TOKEN_S = 21600
"""The longest lifetime of a token; AWS's limit of six hours."""
RENEW_BEFORE_S = 1800
"""Credentials are replaced this long before they expire."""
EC2_ADDRESS = "169.254.169.254"
"""Where the service is on AWS, and in a machine with a network of its own."""
VERSIONS = frozenset(
    {
        "latest",
        "2009-04-04",
        "2016-09-02",
        "2018-09-24",
        "2020-10-27",
        "2021-01-03",
        "2021-03-23",
        "2021-07-15",
    }
)
"""Of AWS's versions those that clients ask for; cloud-init begins with 2009-04-04."""
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  # a header's name
PORT = HttpPort(
    name="imds",
    limits=Limits(body_bytes=1024, header_s=5.0, idle_s=30.0, peer_connections=200),
)
_SECONDS = re.compile(r"[0-9]{1,5}")
_TOKEN = re.compile(r"([0-9]{1,12})-([0-9a-f]{32})-([0-9a-f]{64})")


@dataclass(slots=True)
class _Served:
    """A machine that is served; the key makes its tokens and ends with the service."""

    machine: Machine
    key: bytes
    has_own_network: bool = False


class Metadata:
    """Answers for every machine given to `open`.

    Only root and the user of the local cloud are answered: the tasks of a machine, which run as
    other users, obtain neither the credentials nor the identity of their machine. On AWS a rule of
    the packet filter does the same (docs/security.md).

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
        self._served: dict[str, _Served] = {}  # by address
        self._credentials: dict[str, Credentials] = {}  # by instance
        self._users = {0, os.geteuid()}
        app = web.Application()
        app.router.add_put("/latest/api/token", self._token)
        app.router.add_get("/{path:.*}", self._get)
        self._server = HttpServer(app, PORT)

    async def start(self) -> None:
        """Prepare the server. It listens only where `open` says."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop listening everywhere."""
        await self._server.stop()

    async def open(self, machine: Machine, listening: socket.socket | None = None) -> None:
        """Listen on the machine's address, or on a socket in its own network. Idempotent.

        In a network of its own every user is answered, as on EC2: there the machine has a packet
        filter of its own. A `Metadata` serves one such machine at most.

        Raises:
            Busy: the address cannot be bound.

        """
        address = listening.getsockname()[0] if listening else machine.address
        served = self._served.get(address)
        if served is None and listening is not None:
            await self._server.listen_on(listening)
        elif served is None:
            await self._server.listen(address, self._port)
        if served is None or served.machine.instance_id != machine.instance_id:
            key = secrets.token_bytes(32)
            self._served[address] = _Served(machine, key, has_own_network=listening is not None)

    def listens_for(self, machine: Machine) -> bool:
        """Whether the service listens for this machine; not so after a hypervisor's restart."""
        return self._find(machine) is not None

    def _find(self, machine: Machine) -> _Served | None:
        """What serves this machine: at its own address, or in its own network."""
        for address in (machine.address, EC2_ADDRESS):
            served = self._served.get(address)
            if served is not None and served.machine.instance_id == machine.instance_id:
                return served
        return None

    def update(self, machine: Machine) -> None:
        """Take changed facts of a machine: tags, an interruption notice, another profile."""
        if served := self._find(machine):
            if served.machine.profile_id != machine.profile_id:
                self._credentials.pop(machine.instance_id, None)
            served.machine = machine

    async def close(self, instance_id: str) -> None:
        """Stop listening for the machine; its tokens become invalid."""
        self._credentials.pop(instance_id, None)
        addresses = [
            address
            for address, served in self._served.items()
            if served.machine.instance_id == instance_id
        ]
        for address in addresses:
            del self._served[address]
            await self._server.stop_listening(address, self._port)

    def _served_to(self, request: web.Request) -> _Served:
        """The machine at whose address the request arrived.

        Raises:
            web.HTTPException: there is none, or the caller is not allowed.

        """
        transport = request.transport
        own = transport.get_extra_info("sockname") if transport else None
        peer = transport.get_extra_info("peername") if transport else None
        served = self._served.get(own[0]) if own else None
        if served is None or own is None or peer is None:
            raise web.HTTPNotFound
        if not self._may_call(served, own, peer):
            raise web.HTTPForbidden(text="the metadata service is closed to this user")
        return served

    def _may_call(self, served: _Served, own: tuple[str, int], peer: tuple[str, int]) -> bool:
        return served.has_own_network or peer_user(own, peer) in self._users

    async def _token(self, request: web.Request) -> web.Response:
        served = self._served_to(request)
        if "X-Forwarded-For" in request.headers:
            raise web.HTTPForbidden
        given = request.headers.get(TTL_HEADER, "")
        if not _SECONDS.fullmatch(given) or not 1 <= int(given) <= MAX_TOKEN_S:
            raise web.HTTPBadRequest
        end_ms = str(round((time.monotonic() + int(given)) * 1000))
        nonce = secrets.token_hex(16)
        token = f"{end_ms}-{nonce}-{_seal(served.key, end_ms, nonce)}"
        text = base64.b64encode(token.encode()).decode()
        return web.Response(text=text, headers={TTL_HEADER: given})

    def _require_token(self, request: web.Request, served: _Served) -> None:
        given = request.headers.getall(TOKEN_HEADER, [])
        if not given and not served.machine.tokens_required:
            return
        if len(given) != 1 or not _is_valid_token(given[0], served.key):
            raise web.HTTPUnauthorized

    async def _get(self, request: web.Request) -> web.Response:
        served = self._served_to(request)
        self._require_token(request, served)
        machine = served.machine
        version, _, path = request.match_info["path"].partition("/")
        if version not in VERSIONS:
            raise web.HTTPNotFound
        path = path.rstrip("/")
        if path == "user-data" and machine.user_data:
            content = _user_data(machine)
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
        if listing := _listing(machine, path):
            return web.Response(text=listing)
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
        """Credentials that last; those known, while the endpoint does not give new ones."""
        known, now = self._credentials.get(machine.instance_id), time.time()
        if known is not None and known.expires_at - RENEW_BEFORE_S >= now:
            return known
        try:
            credentials = await self._ask_credentials(machine.instance_id)
        except LookupError:
            raise web.HTTPNotFound from None
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            if known is not None and known.expires_at > now:
                return known
            log.warning("credentials.unavailable", instance=machine.instance_id, error=repr(error))
            raise web.HTTPServiceUnavailable from None
        self._credentials[machine.instance_id] = credentials
        return credentials


def _seal(key: bytes, end_ms: str, nonce: str) -> str:
    return hmac.new(key, f"{end_ms}-{nonce}".encode(), hashlib.sha256).hexdigest()


def _is_valid_token(text: str, key: bytes) -> bool:
    """Whether this key made the token, and its time has not ended."""
    try:
        match = _TOKEN.fullmatch(base64.b64decode(text, validate=True).decode("ascii"))
    except ValueError:
        return False
    if match is None or not hmac.compare_digest(match[3], _seal(key, match[1], match[2])):
        return False
    return int(match[1]) > time.monotonic() * 1000


def _user_data(machine: Machine) -> bytes:
    """The user data, decoded; as it is where a launch gave something else than base64."""
    try:
        return base64.b64decode(machine.user_data, validate=True)
    except ValueError:
        return machine.user_data.encode(errors="replace")


def _facts(machine: Machine) -> dict[str, str]:
    name = "ip-" + machine.address.replace(".", "-")
    domain = (
        "ec2.internal" if machine.region == "us-east-1" else f"{machine.region}.compute.internal"
    )
    return {
        "ami-id": machine.image_id,
        "ami-launch-index": "0",
        "instance-action": "none",
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


def _listing(machine: Machine, path: str) -> str:
    """What the folder at this path has, a name a line; empty if there is no such folder.

    Only what exists is listed: cloud-init reads the whole tree, and fails at a missing leaf.
    """
    prefix = f"{path}/" if path else ""
    present = (leaf for leaf in _leaves(machine) if leaf.startswith(prefix) and leaf != prefix)
    parts = (leaf.removeprefix(prefix).partition("/") for leaf in present)
    return "\n".join(sorted({name + slash for name, slash, _ in parts}))


def _leaves(machine: Machine) -> list[str]:
    """All paths below `meta-data` of a machine; folders that list themselves end with a slash."""
    leaves = {
        **_facts(machine),
        "iam/info": machine.profile_arn,
        "iam/security-credentials/": machine.profile_arn,
        "tags/instance/": machine.metadata_tags,
    }
    return [name for name, value in leaves.items() if value]


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
