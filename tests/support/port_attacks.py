"""Attacks of single connections that every HTTP port must withstand, and what they showed.

Each function gives a list of faults, which is empty for a port that is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tests.support.raw_http import ANSWER_S, parse, request, send

CONTINUE = b"HTTP/1.1 100"


@dataclass(frozen=True, slots=True)
class Port:
    """A port under attack.

    Attributes:
        read: a path that answers GET.
        write: a path that takes a body.
        method: how `write` is called.
        statuses: how a right GET of `read` is answered: IMDS wants a token, the endpoint a
            signature.
        headers: of a request to `write`.

    """

    address: str
    number: int
    read: str
    write: str
    method: str = "POST"
    statuses: frozenset[int] = frozenset({200})
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)

    async def exchange(self, data: bytes) -> bytes:
        """All that comes back until the port closes the connection. The own side stays open."""
        reader, writer = await asyncio.open_connection(self.address, self.number)
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(data)
                return await reader.read()
        finally:
            writer.close()

    async def first_head(self, data: bytes) -> bytes:
        """The first answer's head. The port may wait for the rest of a body before it closes."""
        reader, writer = await asyncio.open_connection(self.address, self.number)
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(data)
                return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()

    def get(self, **headers: str) -> bytes:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return request("GET", self.read, headers=fields, host=self.address)

    def body(self, body: bytes, **headers: str) -> bytes:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        host = fields.pop("Host", self.address)
        return request(self.method, self.write, body, dict(self.headers) | fields, host=host)


async def attack_connection(port: Port) -> list[str]:
    """HEAD, requests in a row, expectations, foreign names and pages."""
    faults = []
    for attack in (_head, _in_a_row, _expectations, _names):
        faults += [f"{port.number}: {attack.__name__}: {fault}" for fault in await attack(port)]
    return faults


async def _head(port: Port) -> list[str]:
    get = await send(port.address, port.number, port.get())
    head = await send(port.address, port.number, port.get().replace(b"GET", b"HEAD", 1))
    faults = [f"GET {get.status}"] if get.status not in port.statuses else []
    if head.status != get.status or head.body:
        faults.append(f"HEAD {head.status} {head.body[:80]!r}")
    return faults


async def _in_a_row(port: Port) -> list[str]:
    """Requests that are sent at once are answered in their order."""
    keeping = port.get(Connection="keep-alive")
    statuses = _statuses(await port.exchange(keeping * 300 + port.get()))
    is_right = len(statuses) == 301 and set(statuses) <= port.statuses
    return [] if is_right else [f"{len(statuses)} answers: {sorted(set(statuses))}"]


async def _expectations(port: Port) -> list[str]:
    """Nobody is asked for a body that is refused before it is read."""
    expect = {"Expect": "100-continue"}
    faults = []
    refused = {
        "a large body": port.body(b"", Content_Length=str(10**12), **expect),
        "a foreign name": port.body(b"", Host="evil.example", Content_Length="9", **expect),
        "another page": port.body(b"", Origin="http://evil.example", Content_Length="9", **expect),
    }
    for name, data in refused.items():
        answer = await port.first_head(data)
        if answer.startswith(CONTINUE) or not 400 <= parse(answer).status < 500:
            faults.append(f"{name}: {answer[:60]!r}")
    whole = await port.exchange(port.body(b"{}", **expect))
    if b"HTTP/1.1 5" in whole or b"HTTP/1.1" not in whole:
        faults.append(f"a body: {whole[:60]!r}")
    return faults


async def _names(port: Port) -> list[str]:
    rebound = f"evil.example:{port.number}"
    attacks = {
        "another name": request("GET", port.read, host=rebound),
        "two names": port.get(X="a").replace(b"X: a", b"Host: evil.example"),
        "an absolute target": request("GET", f"http://{rebound}{port.read}", host=port.address),
        "another page": port.body(b"{}", Origin="http://evil.example"),
        "a sandboxed page": port.body(b"{}", Origin="null"),
        "another site": port.body(b"{}", Sec_Fetch_Site="cross-site"),
    }
    answers = {name: await send(port.address, port.number, data) for name, data in attacks.items()}
    wanted = {400, 403, 421}
    return [f"{name}: {item.status}" for name, item in answers.items() if item.status not in wanted]


async def attack_slowly(port: Port) -> list[str]:
    """Requests that are never finished, as long as the port's own limits let them be."""
    unfinished = {
        "no headers": b"GET /",
        "half of the headers": port.get()[:-4],
        "half of a body": port.body(b"", Content_Length="100") + b"{",
        "half of a chunk": port.body(b"", Content_Length="", Transfer_Encoding="chunked")
        + b"a\r\n{",
    }
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(port.first_head(data)) for name, data in unfinished.items()
        }
    answers = {name: _statuses(task.result()) for name, task in tasks.items()}
    return [
        f"{port.number}: {name}: {statuses}"
        for name, statuses in answers.items()
        if not statuses or not 400 <= statuses[-1] < 500
    ]


def _statuses(answers: bytes) -> Sequence[int]:
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]
