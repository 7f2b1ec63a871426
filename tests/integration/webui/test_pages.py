"""The pages in a browser with a live cluster. The first test needs an empty cluster."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.integration.webui.browser import Browser
from tests.integration.webui.conftest import WebCluster
from tests.integration.webui.framework import Framework

pytestmark = [pytest.mark.browser, pytest.mark.zookeeper, pytest.mark.slow, pytest.mark.timeout(90)]


def agent_host(cluster: WebCluster, number: int | str = "") -> str:
    """The address of an agent, or the beginning of all of them."""
    return f"127.{cluster.net}.100.{number}"


def test_pages_of_an_empty_cluster_show_the_next_step(
    empty_cluster: WebCluster, browser: Browser
) -> None:
    browser.open(f"http://{empty_cluster.leader(5050)}:5050/")
    assert "mesaform status" in browser.text("#agents")
    assert "mesaform run --name hello -- echo hi" in browser.text("#tasks")
    assert "there is no agent to offer" in browser.text("#offers")
    browser.open(f"http://{empty_cluster.leader(8080)}:8080/")
    assert f"curl -X POST http://{empty_cluster.leader(8080)}:8080/v2/apps" in browser.text("#apps")
    assert "Nothing waits" in browser.text("#queue")
    browser.button("Create one").click()
    assert browser.first("dialog#create").is_displayed()


def test_agents_frameworks_and_tasks_of_a_live_cluster_appear(
    cluster: WebCluster, browser: Browser, engine_url: str
) -> None:
    browser.open(engine_url)
    browser.until(lambda: len(browser.rows("tasks")) == len(browser.rows("agents")) == 2)
    assert browser.text("#cluster") == "little"
    assert cluster.leader(5050) in browser.text("#facts")
    assert "embedded" in browser.text("#facts")
    first, second = browser.rows("agents")
    assert first.startswith(f"{agent_host(cluster, 1)} ")
    assert "rack=r2" in second
    assert "active" in second
    [framework] = browser.rows("frameworks")
    assert framework.startswith("marathon")
    assert all("web.shop" in row and "running" in row for row in browser.rows("tasks"))
    tiles = browser.text("#tiles li").replace("\n", " ")
    assert "2 of 2 active" in tiles
    assert "Tasks running 2" in tiles
    assert "1 of 8" in tiles


def test_a_task_s_output_is_two_clicks_away_from_the_engine_s_page(
    browser: Browser, engine_url: str
) -> None:
    browser.open(engine_url)
    browser.until(lambda: "stdout" in browser.text("#tasks"))
    next(link for link in browser.all("#tasks a") if link.text == "stdout").click()
    browser.until(lambda: "ready to serve" in browser.text("#output"))
    next(link for link in browser.all("#h-file a") if link.text == "files").click()
    browser.until(lambda: {"stdout", "stderr"} <= {row.split()[0] for row in browser.rows("list")})
    next(link for link in browser.all("#h-list a") if link.text == "Sandboxes").click()
    browser.until(lambda: browser.row("list", "shop_web.instance"))


def test_a_deactivated_agent_shows_as_such(
    cluster: WebCluster, browser: Browser, engine_url: str
) -> None:
    def operator(kind: str, agent: str) -> None:
        body = {"type": kind, kind.lower(): {"agent_id": {"value": agent}}}
        request = urllib.request.Request(
            f"{engine_url}api/v1", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).close()

    with urllib.request.urlopen(f"{engine_url}slaves", timeout=60) as answer:
        agent = next(
            agent["id"]
            for agent in json.load(answer)["slaves"]
            if agent["hostname"] == agent_host(cluster, 2)
        )
    browser.open(engine_url)
    operator("DEACTIVATE_AGENT", agent)
    try:
        browser.until(lambda: "deactivated" in browser.row("agents", agent_host(cluster, 2)))
        assert "1 of 2 active" in browser.text("#tiles")
    finally:
        operator("REACTIVATE_AGENT", agent)
    browser.until(lambda: "active" in browser.row("agents", agent_host(cluster, 2)).split())


def test_markup_in_names_of_frameworks_tasks_and_commands_shows_as_text(
    cluster: WebCluster, browser: Browser, engine_url: str
) -> None:
    evil = '<img src=x id=evil onerror="document.title=1234">'
    with Framework(
        cluster.leader(5050), f"f {evil}", "javascript:document.title=1234"
    ) as framework:
        framework.launch("marked", f"t {evil}", "sleep 1000")
        browser.open(engine_url)
        browser.until(lambda: browser.row("tasks", f"t {evil}"))
        assert "suppressed" in browser.row("frameworks", f"f {evil}")
        assert not [link for link in browser.all("#frameworks a") if link.text.startswith("f ")], (
            "only http addresses become links"
        )
        assert browser.all("#evil") == []
        cluster.api(
            "POST",
            "/v2/apps",
            {"id": "/marked", "cmd": f"echo '{evil}'; sleep 1000", "cpus": 0.1, "mem": 32},
        )
        browser.open(f"http://{cluster.leader(8080)}:8080/#app=%2Fmarked")
        browser.until(lambda: evil in browser.text("#apps code"))
        browser.until(lambda: "running" in browser.text("#apps .detail"))
        next(link for link in browser.all("#apps a") if link.text == "stdout").click()
        browser.until(lambda: evil in browser.text("#output"))
        assert browser.all("#evil") == []
        assert "1234" not in browser.driver.title
    cluster.api("DELETE", "/v2/apps/marked")


def test_the_filter_narrows_tasks_and_a_refresh_keeps_rows_and_what_was_typed(
    cluster: WebCluster, browser: Browser, engine_url: str
) -> None:
    browser.size(1400, 400)
    browser.open(engine_url)
    browser.until(lambda: len([row for row in browser.rows("tasks") if "web.shop" in row]) == 2)
    host = next(
        word
        for word in browser.row("tasks", "web.shop").split()
        if word.startswith(agent_host(cluster))
    )
    browser.first("#filter").send_keys(f"WEB {host}")
    browser.until(
        lambda: browser.rows("tasks") and all(host in row for row in browser.rows("tasks"))
    )
    assert " of " in browser.text("#n-tasks")
    browser.run(
        "document.querySelector('#tasks tbody tr').mine = true;"
        "document.querySelector('#agents tbody tr').mine = true; scrollTo(0, 77)"
    )
    before = browser.text("#pulse")
    browser.until(lambda: browser.text("#pulse") not in ("", before))
    assert (
        browser.run("return [...document.querySelectorAll('tr')].filter((row) => row.mine).length")
        == 2
    ), "rows are drawn anew"
    assert len(browser.rows("agents")) == 2
    assert browser.run(
        "return [scrollY, document.activeElement.id, document.getElementById('filter').value]"
    ) == [
        77,
        "filter",
        f"WEB {host}",
    ]
    browser.first("#filter").clear()
    browser.first("#filter").send_keys("no such thing")
    browser.until(lambda: "matches the filter" in browser.text("#tasks"))


def test_an_app_is_created_scaled_and_deleted_through_the_page(
    cluster: WebCluster, shaken_browser: Browser, services_url: str
) -> None:
    browser = shaken_browser
    browser.open(services_url)
    browser.button("Create an app").click()
    browser.fill("#create", id="/From Page", cmd="sleep 1000", cpus=0.1, mem=32, instances=1)
    browser.button("Create", "#create").click()
    browser.until(lambda: "is not a name" in browser.text("#create .problem"))
    browser.fill("#create", id="/from-page")
    browser.button("Create", "#create").click()
    browser.until(
        lambda: (
            "running" in browser.row("apps", "/from-page")
            and "1 of 1" in browser.row("apps", "/from-page")
        )
    )
    assert not browser.first("#create").is_displayed()

    browser.button("/from-page").click()
    browser.until(lambda: browser.text("#apps .detail").count("from-page.instance") == 1)
    browser.button("Scale…").click()
    browser.fill("#scale", instances=3)
    browser.button("Scale", "#scale").click()
    browser.until(
        lambda: (
            "3 of 3" in browser.row("apps", "/from-page")
            and browser.text("#apps .detail").count("from-page.instance") == 3
        )
    )
    assert cluster.api("GET", "/v2/apps/from-page")["app"]["instances"] == 3

    browser.button("Delete…").click()
    browser.button("Cancel", "#sure").click()
    browser.button("Delete…").click()
    assert "3 running instances" in browser.text("#sure .what")
    browser.button("Delete", "#sure").click()
    browser.until(lambda: not browser.row("apps", "/from-page"))
    assert "/from-page" not in [app["id"] for app in cluster.api("GET", "/v2/apps")["apps"]]
    assert "Server" not in browser.text("#notice")


def test_reject_reasons_appear_for_an_unschedulable_app(
    cluster: WebCluster, browser: Browser, services_url: str
) -> None:
    browser.open(services_url)
    cluster.api("POST", "/v2/apps", {"id": "/huge", "cmd": "sleep 1", "cpus": 99, "instances": 2})
    browser.until(lambda: "InsufficientCpus on 2 of 2 agents" in browser.row("queue", "/huge"))
    assert "an instance wants 99 CPUs" in browser.row("queue", "/huge")
    assert browser.row("queue", "/huge").startswith("/huge 2 ")
    browser.until(lambda: "unschedulable" in browser.row("apps", "/huge"))
    assert browser.row("deployments", "/huge")
    cluster.api("DELETE", "/v2/apps/huge?force=true")
    browser.until(lambda: "Nothing waits" in browser.text("#queue"))


def test_a_failing_app_shows_its_delay_and_its_output(
    cluster: WebCluster, browser: Browser, services_url: str
) -> None:
    app = {
        "id": "/broken",
        "cmd": "echo no database >&2; exit 7",
        "cpus": 0.1,
        "mem": 32,
        "backoffSeconds": 600,
        "maxLaunchDelaySeconds": 900,
    }
    cluster.api("POST", "/v2/apps", app)
    browser.open(f"{services_url}#app=%2Fbroken")
    browser.until(lambda: "delayed" in browser.row("apps", "/broken"))
    assert "min" in browser.row("queue", "/broken")
    assert "Try now" in browser.row("queue", "/broken")
    browser.until(lambda: "status 7" in browser.text("#apps .detail"))
    next(link for link in browser.all("#apps .detail a") if link.text == "stderr").click()
    browser.until(lambda: "no database" in browser.text("#output"))
    cluster.api("DELETE", "/v2/apps/broken?force=true")


@pytest.mark.parametrize("width", [1000, 1600])
def test_nothing_is_cut_off(
    cluster: WebCluster, browser: Browser, engine_url: str, services_url: str, width: int
) -> None:
    browser.size(width, 900)
    for url in (engine_url, f"{services_url}#app=%2Fshop%2Fweb"):
        browser.open(url)
        browser.until(lambda: agent_host(cluster) in browser.text("main"))
        wider = (
            "return [...document.querySelectorAll('html, .scroll, .tiles > li')]"
            ".filter((one) => one.scrollWidth > one.clientWidth)"
        )
        assert (
            browser.run(f"{wider}.map((one) => one.className + ': ' + one.innerText.slice(0, 60))")
            == []
        )


def test_every_control_has_a_name_and_text_stands_out_in_light_and_dark(
    browser: Browser, engine_url: str, services_url: str
) -> None:
    for scheme in ("light", "dark"):
        browser.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        for url in (engine_url, services_url):
            browser.open(url)
            assert browser.run(NAMELESS) == []
            assert browser.run(FAINT) == [], scheme
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


NAMELESS = """
return [...document.querySelectorAll("button, a, input, table")].filter((one) =>
  !(one.innerText || one.textContent || "").trim() && !one.labels?.length &&
  !one.getAttribute("aria-label")).map((one) => one.outerHTML)
"""

FAINT = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function rgb(color) {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
}
function light([r, g, b]) {
  const [x, y, z] = [r, g, b].map((part) =>
    (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function behind(one) {
  for (; one; one = one.parentElement) {
    const color = rgb(getComputedStyle(one).backgroundColor);
    if (color[3] === 255) return color;
  }
  return rgb("white");
}
function contrast(one) {
  const both = [light(rgb(getComputedStyle(one).color)), light(behind(one))];
  const [more, less] = both.sort((left, right) => right - left);
  return (more + 0.05) / (less + 0.05);
}
const hasText = (one) =>
  [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
const all = [...document.querySelectorAll("body *")];
const shown = all.filter((one) => one.checkVisibility() && hasText(one));
return shown.map((one) => [contrast(one), one.innerText]).filter(([ratio]) => ratio < 4.5);
"""
