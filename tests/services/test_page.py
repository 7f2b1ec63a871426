from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.services.support import Server
from tests.support.scripted_engine import ScriptedEngine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.browser, pytest.mark.zookeeper, pytest.mark.slow]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
async def test_the_page_shows_apps_queue_and_deployments_and_no_markup_of_others(
    server: Server, engine: ScriptedEngine, tmp_path: Path
) -> None:
    await server.post({"id": "/web", "cmd": "serve", "mem": 32, "backoffSeconds": 0})
    task = (await server.running("/web", 1))["tasks"][0]["id"]
    engine.finish(task, "TASK_FAILED", "<b id=evil>bad</b>")
    await server.running("/web", 1)
    await server.post({"id": "/huge", "cmd": "serve", "cpus": 99})

    async def refused() -> bool:
        summary = (await server.queued("/huge", 1))["processedOffersSummary"]
        return any(row["declined"] for row in summary["rejectSummaryLastOffers"])

    await server.until(refused)
    chromium = await asyncio.create_subprocess_exec(
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=3000",
        "--dump-dom",
        server.settings.url + "/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(60):
        page = (await chromium.communicate())[0].decode()
    assert "led by 127.61.1.1" in page
    assert "<td>/web</td>" in page
    assert "&lt;b id=evil&gt;" in page
    assert "<b id=" not in page
    assert "InsufficientCpus on 2" in page
    assert "StartApplication, ScaleApplication" in page
