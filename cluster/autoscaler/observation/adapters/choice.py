"""Which adapter reads a framework, and at which URL. Pure.

1. An entry of `frameworks` in cluster.yaml, by the framework's name or role.
2. The framework's name: Marathon, Chronos and Metronome register with their own, and with a
   `webui_url`.
3. The `webui_url` alone: it is asked whether it is a Spark driver's, else whether it serves
   `GET /demand`. A framework that answers neither is asked again after a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mesaform.autoscaler.model.cluster_view import Framework
from mesaform.autoscaler.observation.adapters import (
    airflow,
    chronos,
    demand_hook,
    marathon,
    metronome,
    spark,
)
from mesaform.autoscaler.observation.adapters.answers import Read, Subject
from mesaform.config.frameworks import FrameworkAdapter

ADAPTERS: Mapping[str, Read] = {
    "spark": spark.read,
    "marathon": marathon.read,
    "chronos": chronos.read,
    "metronome": metronome.read,
    "airflow": airflow.read,
    "hook": demand_hook.read,
}
"""The adapters by the names that cluster.yaml has for them."""

BY_NAME: Mapping[str, str] = {
    "marathon": "marathon",
    "chronos": "chronos",
    "metronome": "metronome",
}
"""Adapters of frameworks by what their name begins with, in lower case."""

TRIED = ("spark", "hook")
"""Adapters that are tried in turn at a `webui_url` of an unknown framework."""

DEFAULT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """How a framework is read: the adapters to try in turn, and where.

    `is_configured` means that the URL is the operator's. `entry` is the entry of cluster.yaml.
    """

    adapters: tuple[str, ...]
    url: str
    is_configured: bool
    entry: FrameworkAdapter | None = None

    @property
    def timeout_s(self) -> float:
        """How long the framework may take to answer."""
        return self.entry.timeout_s if self.entry else DEFAULT_TIMEOUT_S

    @property
    def is_certain(self) -> bool:
        """Whether the framework is known to have this API, so that silence is a failure."""
        return len(self.adapters) == 1

    @property
    def has_credential(self) -> bool:
        """Whether a credential goes with the requests."""
        entry = self.entry
        if entry is None or not entry.has_credential:
            return False
        return self.is_configured or entry.credential_to_webui_url

    def subject(self, framework: Framework) -> Subject:
        """The framework, as its adapter wants it."""
        entry = self.entry
        defaults = (
            (entry.default_cpus, entry.default_mem_mib, entry.default_disk_mib)
            if entry
            else (None, None, None)
        )
        return Subject(framework.framework_id, framework.name, defaults)


def choose(framework: Framework, entries: Sequence[FrameworkAdapter]) -> Choice | None:
    """How a framework is read; None if it has no API that is known."""
    entry = next((entry for entry in entries if _matches(entry, framework)), None)
    if entry is not None:
        return _configured(entry, framework)
    if not framework.webui_url:
        return None
    name = framework.name.lower()
    known = next((adapter for start, adapter in BY_NAME.items() if name.startswith(start)), None)
    return Choice((known,) if known else TRIED, framework.webui_url, is_configured=False)


def _configured(entry: FrameworkAdapter, framework: Framework) -> Choice | None:
    url = entry.url or framework.webui_url
    if entry.adapter == "none" or not url:
        return None
    return Choice((entry.adapter,), url, entry.url is not None, entry)


def _matches(entry: FrameworkAdapter, framework: Framework) -> bool:
    if entry.name is not None:
        return fnmatchcase(framework.name, entry.name)
    return entry.role in framework.roles
