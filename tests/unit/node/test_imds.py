"""The metadata client, against a real HTTP server that checks tokens."""

from __future__ import annotations

import pytest

from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.node.model import Identity
from tests.integration.node.metadata import INSTANCE, MetadataServer
from tests.support.zookeeper import free_port


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client(endpoint: str, clock: Clock | None = None, patience_s: float = 10.0) -> Metadata:
    clock = clock or Clock()
    return Metadata(endpoint, patience_s=patience_s, monotonic=lambda: clock.now, sleep=clock.sleep)


def test_a_machine_learns_who_it_is_with_one_token() -> None:
    with MetadataServer(INSTANCE) as server:
        metadata = client(server.endpoint)
        assert metadata.identity() == Identity(
            "i-0abc", "m5.large", "us-east-1b", "127.71.0.9", "spot"
        )
        assert metadata.user_data() == '{"version":1}'
        assert len(server.tokens) == 1


def test_a_service_that_does_not_say_the_lifecycle_means_on_demand() -> None:
    without = {key: value for key, value in INSTANCE.items() if not key.endswith("life-cycle")}
    with MetadataServer(without) as server:
        assert client(server.endpoint).identity().lifecycle == "on-demand"


def test_a_token_that_is_no_longer_good_is_replaced() -> None:
    with MetadataServer(INSTANCE) as server:
        metadata = client(server.endpoint)
        metadata.get("user-data")
        server.tokens.clear()
        assert metadata.get("user-data") == '{"version":1}'


def test_a_service_with_a_hiccup_is_asked_again() -> None:
    clock = Clock()
    with MetadataServer(INSTANCE) as server:
        server.failures = [503, 500, 429]
        assert client(server.endpoint, clock).user_data() == '{"version":1}'
    assert clock.slept == [0.1, 0.2, 0.5]


def test_a_service_that_never_comes_up_is_named_with_how_long_was_waited() -> None:
    clock = Clock()
    endpoint = f"http://127.71.0.2:{free_port('127.71.0.2')}"
    with pytest.raises(
        MetadataUnavailable, match=f"{endpoint} does not serve metadata within 10 s: .*refused"
    ):
        client(endpoint, clock).user_data()
    assert 8 < clock.now <= 10


def test_a_machine_without_user_data_was_not_launched_by_us() -> None:
    with (
        MetadataServer({}) as server,
        pytest.raises(
            MetadataUnavailable, match="has no user-data: this machine was not launched by mesaform"
        ),
    ):
        client(server.endpoint).user_data()


def test_a_disabled_service_is_not_asked_for_minutes() -> None:
    clock = Clock()
    with MetadataServer(INSTANCE) as server:
        server.failures = [403]
        with pytest.raises(MetadataUnavailable, match="gives no token \\(answers 403\\)"):
            client(server.endpoint, clock).user_data()
    assert clock.slept == []


def test_the_address_is_the_one_that_awss_own_tools_take() -> None:
    with MetadataServer(INSTANCE) as server:
        assert (
            Metadata.from_environment(
                {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint + "/"}
            ).user_data()
            == '{"version":1}'
        )
    assert Metadata.from_environment({})._endpoint == "http://169.254.169.254"
