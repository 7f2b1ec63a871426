"""Output that is followed while the runner rotates it: every line comes once, in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from mesaform.engine.agent.sandbox_files import SandboxFiles
from mesaform.mesos.sandbox import Sandboxes


async def served(root: Path, sandbox: Path) -> TestServer:
    """The services' proxy of one agent, which has one task."""
    executor = {"id": "t", "directory": str(sandbox)}

    async def state(_request: web.Request) -> web.Response:
        return web.json_response({"frameworks": [{"executors": [executor]}]})

    application = web.Application()
    application.router.add_get("/agents/a/state", state)
    application.router.add_get("/agents/a/files/read", SandboxFiles(root).read)
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
