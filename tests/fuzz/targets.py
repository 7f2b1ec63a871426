"""Every target of fuzzing, on one cluster under test and in this process."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tests.fuzz import (
    aws_inputs,
    aws_signing,
    core_target,
    link_target,
    ports,
    raw_inputs,
    record_target,
    stored_target,
)
from tests.fuzz.campaign import Target
from tests.fuzz.exchange import Answer, Exchange, Request
from tests.fuzz.inputs import Messages, Packets
from tests.fuzz.subject import Subject

RAW_PORTS = ("5050", "5051", "8080", "9550", "aws", "imds")


def in_process() -> list[Target]:
    """The targets that need no cluster: the engine's core, and the codecs of stored records."""
    return [
        Target("core", core_target.scripts(), core_target.perform, weight=3),
        Target("records", record_target.records(), record_target.perform),
    ]


def on_ports(subject: Subject) -> list[Target]:
    """The targets on the ports of a cluster."""
    return [
        Target("5050", ports.master(), _http(subject, "5050"), weight=3),
        Target("5051", ports.agent(), _http(subject, "5051")),
        Target("8080", ports.services(), _http(subject, "8080"), weight=3),
        Target("9550", ports.autoscaler(), _http(subject, "9550")),
        Target("imds", ports.metadata(), _http(subject, "imds")),
        Target("aws", aws_inputs.calls(), _http(subject, "aws"), weight=2),
        Target("control", aws_inputs.control(), _control(subject)),
        Target("link", link_target.streams(), _link(subject), has_variants=False),
        *(
            Target(f"raw {port}", raw_inputs.connections(), _packets(subject, port))
            for port in RAW_PORTS
        ),
    ]


def on_records(subject: Subject) -> list[Target]:
    """The targets on the stored records of a cluster and of a local cloud; they take seconds."""
    contents = stored_target.contents()
    perform = partial(stored_target.perform, subject)
    return [
        Target("stored", contents, perform, has_variants=False),
        Target("files", contents, subject.files.perform, has_variants=False),
    ]


class Placeholders:
    """Replaces the placeholders of an input by what the cluster has at this moment."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._token = b"none"
        self._values: dict[bytes, Callable[[], str]] = {
            b"{{offer}}": self._offer,
            b"{{framework}}": lambda: subject.scheduler.framework_id,
            b"{{stream}}": lambda: subject.scheduler.stream_id,
            b"{{agent}}": lambda: subject.agent_id,
            b"{{task}}": lambda: next(reversed(subject.scheduler.tasks), "none"),
            b"{{uuid}}": self._uuid,
            b"{{instance}}": lambda: subject.instance_id,
            b"{{image}}": subject.cloud.image,
            b"{{vpc}}": lambda: subject.cloud.network()[0],
            b"{{subnet}}": subject.cloud.subnet,
            b"{{bucket}}": lambda: subject.bucket,
            b"{{app}}": lambda: "fuzz",
            b"{{deployment}}": lambda: "none",
            b"{{token}}": self._metadata_token,
        }

    def fill(self, data: bytes) -> bytes:
        """The bytes with real ids."""
        if b"{{" not in data:
            return data
        for name, value in self._values.items():
            if name in data:
                data = data.replace(name, value().encode())
        return data

    def _offer(self) -> str:
        """An offer that no other call has used."""
        scheduler = self._subject.scheduler
        for name in scheduler.offers.copy():
            scheduler.offers.pop(name, None)
            return name
        return "none"

    def _uuid(self) -> str:
        statuses = self._subject.scheduler.uuids
        return str(statuses[-1]["uuid"]) if statuses else "AAAAAAAAAAAAAAAAAAAAAA=="

    def _metadata_token(self) -> str:
        host, port = self._subject.addresses["imds"]
        request = urllib.request.Request(
            f"http://{host}:{port}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
        return "none"


def _http(subject: Subject, port: str) -> Callable[[Request], Answer]:
    placeholders, exchange = Placeholders(subject), Exchange(subject.addresses[port])

    def perform(request: Request) -> Answer:
        if port == "5050" and subject.scheduler.is_closed:
            subject.scheduler.subscribe()
        fill = placeholders.fill
        headers = tuple((name, fill(value)) for name, value in request.headers)
        path, body = fill(request.path), fill(request.body)
        filled = replace(request, path=path, headers=headers, body=body)
        if port == "aws":
            host, number = subject.addresses["aws"]
            filled = aws_signing.signed(filled, f"{host}:{number}", subject.cloud.root)
        return exchange.request(filled)

    return perform


def _control(subject: Subject) -> Callable[[Request], Answer]:
    """As for every port; what the call switched on is switched off at once."""
    perform = _http(subject, "aws")

    def perform_and_clear(request: Request) -> Answer:
        answer = perform(aws_signing.with_token(request, subject.cloud.root))
        if answer.status == 201:
            subject.cloud.clear_faults()
        return answer

    return perform_and_clear


def _packets(subject: Subject, port: str) -> Callable[[Packets], Answer]:
    exchange = Exchange(subject.addresses[port])
    return lambda value: exchange.raw(value.packets, is_complete=False, half_close=value.half_close)


def _link(subject: Subject) -> Callable[[Messages], Answer]:
    placeholders = Placeholders(subject)

    def perform(value: Messages) -> Answer:
        filled = Messages(tuple(map(placeholders.fill, value.messages)))
        return link_target.perform(subject.addresses["5052"], filled)

    return perform


def by_name(subject: Subject | None) -> dict[str, Callable[[Any], Answer]]:
    """What each target does with an input."""
    targets = in_process()
    if subject is not None:
        targets += [*on_ports(subject), *on_records(subject)]
    return {target.name: target.perform for target in targets}
