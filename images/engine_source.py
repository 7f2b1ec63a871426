"""The source of Apache Mesos that the recipe names under [engine]. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class EngineSource:
    """Where the programs of Apache Mesos come from.

    `kind` says how they get into an image: `packages` of an apt source, .deb files (`debs`), or a
    `prefix` into which they are installed before. `names` are packages, URLs or the prefix.
    """

    kind: Literal["packages", "debs", "prefix"]
    names: tuple[str, ...]


def engine_source(section: Mapping[str, object]) -> EngineSource | None:
    """The source that the section [engine] of a recipe names; None without one.

    Raises:
        ValueError: it names more than one, or a part of it is malformed.

    """
    prefix = str(section["prefix"])
    if prefix and not prefix.startswith("/"):
        raise ValueError(f"engine.prefix {prefix} is not an absolute path")
    sources = (
        EngineSource("packages", tuple(str(name) for name in _listed(section, "packages"))),
        EngineSource("debs", tuple(_deb_url(deb) for deb in _listed(section, "debs"))),
        EngineSource("prefix", (prefix,) if prefix else ()),
    )
    return _only([source for source in sources if source.names])


def _only(named: list[EngineSource]) -> EngineSource | None:
    if len(named) > 1:
        kinds = " and ".join(source.kind for source in named)
        raise ValueError(f"engine names {kinds}: name one source")
    return named[0] if named else None


def _listed(section: Mapping[str, object], name: str) -> list[object]:
    value = section[name]
    if not isinstance(value, list):
        raise ValueError(f"engine.{name} is not a list")  # noqa: TRY004 - a fault of a file
    return value


def _deb_url(deb: object) -> str:
    if not isinstance(deb, dict) or set(deb) != {"url", "sha256"}:
        raise ValueError('engine.debs: each is { url = "https://…", sha256 = "…" }')
    url, sha256 = str(deb["url"]), str(deb["sha256"])
    if not url.startswith("https://"):
        raise ValueError(f"engine.debs: {url} is not an https URL")
    if not SHA256.fullmatch(sha256):
        raise ValueError(f"engine.debs: {sha256!r} is not a SHA-256 of 64 hex digits")
    return url
