"""The pages during changes of leader. The last module of the folder: it ends masters."""

from __future__ import annotations

import http.client

import pytest

from tests.integration.webui.browser import Browser
from tests.integration.webui.conftest import WebCluster

pytestmark = [
    pytest.mark.browser,
    pytest.mark.zookeeper,
    pytest.mark.slow,
    pytest.mark.timeout(120),
]


def test_a_standby_sends_the_reader_to_the_leader(cluster: WebCluster, browser: Browser) -> None:
    for port in (5050, 8080):
        leader = cluster.leader(port)
        [standby] = [master for master in cluster.masters if master != leader]
        browser.open(f"http://{standby}:{port}/")
        assert browser.driver.current_url == f"http://{leader}:{port}/"


def test_pages_go_to_the_new_leader_when_theirs_is_gone_for_good_or_comes_back_as_a_standby(
    cluster: WebCluster, shaken_browser: Browser
) -> None:
    browser = shaken_browser
    first, other = browser.driver.current_window_handle, None
    browser.open(f"http://{cluster.leader(5050)}:5050/")
    try:
        browser.driver.switch_to.new_window("tab")
        other = browser.driver.current_window_handle
        browser.open(f"http://{cluster.leader(8080)}:8080/#app=%2Fshop%2Fweb")

        gone = cluster.leader(5050)
        [left] = [master for master in cluster.masters if master != gone]
        cluster.kill(gone)
        browser.driver.switch_to.window(first)
        browser.until(
            lambda: "Out of date" in browser.text("#notice") or left in browser.driver.current_url
        )
        arrived(browser, f"http://{left}:5050/")
        browser.until(
            lambda: (
                len(
                    [row for row in browser.rows("tasks") if "web.shop" in row and "running" in row]
                )
                == 2
            )
        )
        browser.driver.switch_to.window(other)
        arrived(browser, f"http://{left}:8080/")
        browser.until(lambda: browser.text("#apps .detail").count("shop_web.instance") == 2)

        cluster.start_master(gone)
        cluster.start_services(gone)
        cluster.until(
            lambda: {cluster.answers(f"http://{gone}:{port}/") for port in (5050, 8080)} == {307}
        )
        cluster.kill(left)
        cluster.start_master(left)
        cluster.start_services(left)
        ways = {leads_to(left)}
        cluster.until(lambda: ways.add(leads_to(left)) or f"//{gone}:5050/" in ways)
        assert ways <= {None, f"//{gone}:5050/"}, (
            "a master whose own old session still counts as leading must not redirect to itself"
        )
        arrived(browser, f"http://{gone}:8080/")
        browser.driver.switch_to.window(first)
        arrived(browser, f"http://{gone}:5050/")
        browser.until(
            lambda: (
                len(
                    [row for row in browser.rows("tasks") if "web.shop" in row and "running" in row]
                )
                == 2
            )
        )
    finally:
        if other is not None:
            browser.driver.switch_to.window(other)
            browser.driver.close()
        browser.driver.switch_to.window(first)


def leads_to(master: str) -> str | None:
    """Where the page on a master redirects to; None when it does not, or nobody answers."""
    connection = http.client.HTTPConnection(master, 5050, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().headers["Location"]
    except OSError:
        return None
    finally:
        connection.close()


def arrived(browser: Browser, url: str) -> None:
    """The page is the one at `url`, by itself, and true again."""

    def there() -> bool:
        return (
            browser.driver.current_url.startswith(url)
            and "live" in browser.text("#pulse")
            and not browser.text("#notice")
        )

    browser.until(there)
