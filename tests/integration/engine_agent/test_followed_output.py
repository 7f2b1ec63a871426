"""Output that is followed while the runner rotates it: every line comes once, in order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from mesaform.cli.run_report import JsonReporter, TextReporter
from mesaform.engine.agent.sandbox_files import SandboxFiles
from mesaform.mesos.sandbox import Sandboxes, bytes_of


async def served(root: Path, sandbox: Path, agent: str = "embedded") -> TestServer:
    """The services' proxy of one agent, which has one task."""
    files = SandboxFiles(root)
    executor = {"id": "t", "directory": str(sandbox)}

    async def state(_request: web.Request) -> web.Response:
        return web.json_response({"frameworks": [{"executors": [executor]}]})

    async def whole_file(request: web.Request) -> web.Response:
        return web.Response(body=Path(request.query["path"]).read_bytes())

    async def raw_bytes(request: web.Request) -> web.Response:
        """As agents of Apache Mesos answer: only quotes and control characters are escaped."""
        offset, data = int(request.query["offset"]), Path(request.query["path"]).read_bytes()
        part = b"" if offset < 0 else data[offset : offset + int(request.query["length"])]
        part = part.replace(b"\n", b"\\n")
        at = len(data) if offset < 0 else offset
        return web.Response(body=b'{"data":"%b","offset":%d}' % (part, at))

    application = web.Application()
    application.router.add_get("/agents/a/state", state)
    read = raw_bytes if agent == "raw bytes in JSON" else files.read
    application.router.add_get("/agents/a/files/read", read)
    download = whole_file if agent == "without ranges" else files.download
    application.router.add_get("/agents/a/files/download", download)
    server = TestServer(application)
    await server.start_server()
    return server


async def test_a_rotated_file_is_followed_from_the_old_file_into_the_new_one(tmp_path):
    sandbox = tmp_path / "sandboxes" / "t"
    sandbox.mkdir(parents=True)
    (sandbox / "stderr").touch()
    out = sandbox / "stdout"
    out.write_text("one\n")
    seen: list[str] = []
    written, ended = asyncio.Event(), asyncio.Event()

    def write(_stream: str, text: str) -> None:
        seen.append(text)
        written.set()

    server = await served(tmp_path / "sandboxes", sandbox)
    async with aiohttp.ClientSession() as session:
        sandboxes = Sandboxes([str(server.make_url("")).rstrip("/")], session)
        following = asyncio.create_task(sandboxes.follow("a", "t", ended, write, pause_s=0.01))
        await written.wait()
        with out.open("a") as file:
            file.write("two\n")
        out.rename(sandbox / "stdout.1")
        out.write_text("3\n")
        ended.set()
        async with asyncio.timeout(60):
            await following
    await server.close()
    assert "".join(seen) == "one\ntwo\n3\n"


BINARY = b"a\xff\xfeb\n" + "é\ufffd".encode() * 30_000 + b"\x80"


@pytest.mark.parametrize("agent", ["embedded", "without ranges", "raw bytes in JSON"])
async def test_output_that_is_not_text_comes_byte_for_byte(tmp_path, agent):
    sandbox = tmp_path / "sandboxes" / "t"
    sandbox.mkdir(parents=True)
    (sandbox / "stderr").touch()
    (sandbox / "stdout").write_bytes(BINARY)
    server = await served(tmp_path / "sandboxes", sandbox, agent)
    seen: list[bytes] = []
    ended = asyncio.Event()
    ended.set()
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        sandboxes = Sandboxes([str(server.make_url("")).rstrip("/")], session)
        await sandboxes.follow("a", "t", ended, lambda _, text: seen.append(bytes_of(text)))
    await server.close()
    assert b"".join(seen) == BINARY


def test_the_command_line_writes_the_exact_bytes(capfdbinary):
    text = b"a\xff\xfeb".decode("utf-8", "surrogateescape")
    TextReporter(many=False).output("t", "stdout", text)
    reporter = TextReporter(many=True)
    reporter.output("t", "stdout", text)
    reporter.ended(0)
    JsonReporter().output("t", "stdout", text)
    lines = capfdbinary.readouterr().out.split(b"\n")
    assert lines[0] == b"a\xff\xfebt | a\xff\xfeb"
    assert json.loads(lines[1])["text"] == "a\ufffd\ufffdb"
