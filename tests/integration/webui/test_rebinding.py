"""DNS rebinding: a page whose name resolves to a master cannot read or change anything there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.webui.browser import Browser
from tests.integration.webui.conftest import WebCluster

pytestmark = pytest.mark.browser

SEND = """
const [method, path, body, done] = arguments;
fetch(path, {method, body, headers: body ? {"Content-Type": "application/json"} : {}})
  .then(async answer => done([answer.status, await answer.text()]))
  .catch(error => done([0, String(error)]));
"""
APP = '{"id": "/rebound", "cmd": "id", "cpus": 0.1, "mem": 32}'
SUBSCRIBE = '{"type": "SUBSCRIBE"}'


@pytest.mark.parametrize(
    ("port", "read", "write", "body"),
    [(8080, "/v2/apps", "/v2/apps", APP), (5050, "/state", "/api/v1/scheduler", SUBSCRIBE)],
)
def test_a_page_whose_name_resolves_to_the_leader_is_refused(
    empty_cluster: WebCluster, tmp_path: Path, port: int, read: str, write: str, body: str
) -> None:
    leader = empty_cluster.leader(port)
    browser = Browser(tmp_path, f"--host-resolver-rules=MAP evil.example {leader}")
    try:
        browser.driver.get(f"http://evil.example:{port}/")
        assert browser.driver.execute_script("return location.host") == f"evil.example:{port}"
        for method, path, text in (("GET", read, None), ("POST", write, body)):
            status, answer = browser.driver.execute_async_script(SEND, method, path, text)
            assert status == 421, answer
            assert "evil.example" in answer
        browser.driver.get(f"http://{leader}:{port}/")
        status, answer = browser.driver.execute_async_script(SEND, "GET", read, None)
        assert status == 200, "the own page reads"
    finally:
        browser.quit()
    if port == 8080:
        apps = empty_cluster.api("GET", "/v2/apps")["apps"]
        assert "/rebound" not in [app["id"] for app in apps]
