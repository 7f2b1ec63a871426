"""Operators' credentials at the boundary, with a small application on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.access import (
    AccessDocument,
    access_text,
    basic_header,
    is_operator,
)
from mesaform.http import Access, AccessFile, HttpPort, HttpServer, PortAccess, paths
from mesaform.http.client import open_session
from mesaform.http.errors import json_message
from mesaform.http.login import OperatorLogin

TOKEN, NEXT, FORMER = "1" * 64, "2" * 64, "3" * 64
LOOPBACK = "127.0.0.1"
NO_CREDENTIALS = {
    "nothing": "",
    "another token": f"Bearer {FORMER}",
    "an empty token": "Bearer ",
    "a part of the token": f"Bearer {TOKEN[:-1]}",
    "another password": basic_header("operator", FORMER),
    "another user": basic_header("root", TOKEN),
    "an empty password": basic_header("operator", ""),
    "the token without a scheme": TOKEN,
    "no base64": "Basic !!!",
    "text beyond ASCII": "Basic 4pyT",
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.json"
    path.write_text(access_text(AccessDocument((TOKEN, NEXT))))
    return path


@pytest.fixture
async def base(file: Path, clock: Clock) -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="done")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    access = PortAccess(Access(AccessFile(file, clock), is_required=True), paths("/health"))
    server = HttpServer(app, HttpPort("test", render_error=json_message, access=access))
    yield f"http://{LOOPBACK}:{await server.listen(LOOPBACK, 0)}"
    await server.stop()


async def ask(url: str, authorization: str = "", method: str = "GET") -> tuple[int, Any]:
    headers = {"Authorization": authorization} if authorization else {}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers) as response,
    ):
        return response.status, response.headers.get("WWW-Authenticate")


@pytest.mark.parametrize("name", NO_CREDENTIALS)
async def test_a_request_without_a_valid_token_is_refused_in_the_ports_format(
    base: str, name: str
) -> None:
    headers = {"Authorization": NO_CREDENTIALS[name]} if NO_CREDENTIALS[name] else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/v2/apps", headers=headers, data=b"x") as response,
    ):
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
        assert "mesaform token show" in (await response.json())["message"]


@pytest.mark.parametrize(
    "authorization",
    [
        f"Bearer {TOKEN}",
        f"bearer {NEXT}",
        basic_header("operator", TOKEN),
        basic_header("operator", NEXT),
    ],
)
async def test_both_tokens_of_a_rotation_are_valid_as_bearer_and_as_password(
    base: str, authorization: str
) -> None:
    assert (await ask(f"{base}/", authorization, "DELETE"))[0] == 200


async def test_only_the_exact_open_paths_need_no_token(base: str) -> None:
    assert (await ask(f"{base}/health"))[0] == 200
    for path in ("/health/x", "/healthy", "//health", "/x?/health", "/%68ealth", "/"):
        async with aiohttp.ClientSession() as session:
            from yarl import URL

            async with session.get(URL(base + path, encoded=True)) as response:
                assert response.status == 401, path


async def test_a_changed_file_counts_at_once_and_without_a_file_nobody_is_an_operator(
    base: str, file: Path, clock: Clock
) -> None:
    assert (await ask(base, f"Bearer {TOKEN}"))[0] == 200
    file.write_text(access_text(AccessDocument((NEXT,))))
    clock.now += 1
    assert (await ask(base, f"Bearer {TOKEN}"))[0] == 401
    assert (await ask(base, f"Bearer {NEXT}"))[0] == 200
    for content in ("{", '{"tokens": [""]}', '{"tokens": [7]}'):
        file.write_text(content)
        clock.now += 1
        assert (await ask(base, f"Bearer {NEXT}"))[0] == 401
        assert (await ask(base, "Bearer "))[0] == 401
    file.unlink()
    clock.now += 1
    assert (await ask(base, f"Bearer {NEXT}"))[0] == 401


async def test_the_login_sends_the_token_to_masters_only_and_reads_a_refused_one_again(
    base: str,
) -> None:
    read: list[bool] = []

    async def token(was_refused: bool) -> str:
        read.append(was_refused)
        return TOKEN if was_refused else FORMER

    port = int(base.rpartition(":")[2])
    async with open_session(OperatorLogin(lambda: {LOOPBACK}, [port], token)) as session:
        async with session.post(f"{base}/x", data=b"a body") as response:
            assert response.status == 200
        assert read == [False, True]
        own = {"Authorization": basic_header("services", "secret")}
        async with session.get(base, headers=own) as response:
            assert response.status == 401
            assert read == [False, True], "another credential is left as it is"
    for hosts, ports in ((set[str](), [port]), ({LOOPBACK}, [port + 1])):
        login = OperatorLogin(lambda hosts=hosts: hosts, ports, token)  # type: ignore[misc]
        async with open_session(login) as session, session.get(base) as response:
            assert response.status == 401
            assert read == [False, True], "an agent never sees the token"


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_no_text_of_a_header_is_an_error_or_an_operator(header: str, tokens: list[str]) -> None:
    assert is_operator((), header) is False
    assert is_operator(tokens, header) in {True, False}
    assert is_operator(tokens, f"Bearer {header}") is (header.strip() in tokens)
