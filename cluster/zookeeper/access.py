"""Who may read and write which node: digest credentials, and the access control list of a path.

Masters have the credentials. With them a session owns what it creates, and `owned_acl` says who
else may read it. A session without credentials creates open nodes, as in tests and for ensembles
of others. Depends on kazoo and `mesaform.topology.zookeeper`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kazoo.security import ACL, make_acl, make_digest_acl

from mesaform.common.errors import BadInput
from mesaform.topology.zookeeper import SUPERUSER, is_public, superuser_password

_FORM = "write zk://host:port,host:port/path"


@dataclass(frozen=True, slots=True)
class Credentials:
    """User and password of the scheme `digest`."""

    user: str
    password: str = field(repr=False)

    @property
    def auth_data(self) -> list[tuple[str, str]]:
        """What a session sends: its own user, and the superuser of the masters' own ensemble.

        The superuser may change nodes of an earlier secret. An ensemble that does not know it takes
        it for one more user.
        """
        own = ("digest", f"{self.user}:{self.password}")
        return [own, ("digest", f"{SUPERUSER}:{superuser_password(self.password)}")]


@dataclass(frozen=True, slots=True)
class ZkUrl:
    """Where the nodes of a program are."""

    hosts: str
    path: str
    credentials: Credentials | None = None

    @property
    def text(self) -> str:
        """The URL without credentials, for pages and logs."""
        return f"zk://{self.hosts}{self.path}"


def read_zk_url(url: str) -> ZkUrl:
    """Parse `zk://a:1,b:2/path`, the same with `user:password@`, or `file:///…` with such a text.

    These are the forms that Apache Mesos takes.

    Raises:
        BadInput: the URL has another form, or the file cannot be read.

    """
    text = _read_file(url) if url.startswith("file://") else url
    scheme, separator, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    if scheme != "zk" or not all((separator, authority, slash, path)):
        shown = repr(url) if text is url else f"the content of {url}"
        raise BadInput(f"{shown} is not a ZooKeeper URL", fix=_FORM)
    login, at, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    return ZkUrl(hosts, "/" + path.rstrip("/"), Credentials(user, password) if at else None)


def _read_file(url: str) -> str:
    path = Path(urlsplit(url).path)
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=str(path), fix=_FORM) from None


def owned_acl(credentials: Credentials, path: str) -> list[ACL]:
    """The list of a node: everything for the owner, reading for everyone if it is public."""
    entries = [make_digest_acl(credentials.user, credentials.password, all=True)]
    if is_public(path):
        entries.append(make_acl("world", "anyone", read=True))
    return entries


def acl_chooser(credentials: Credentials | None) -> Callable[[str], list[ACL] | None]:
    """The list for each path of a session; None, kazoo's open list, without credentials."""
    if credentials is None:
        return lambda _path: None
    return lambda path: owned_acl(credentials, path)
