"""The metadata client against an HTTP server that checks tokens."""

from __future__ import annotations

import pytest

from harness.ports import free_port
from mesaform.node.imds import Metadata, MetadataUnavailable
from mesaform.node.model import Identity
from tests.integration.node.metadata import INSTANCE, MetadataServer


class Clock:
    """Simulated time: only `sleep` moves it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now += seconds


def client(endpoint: str, clock: Clock | None = None, retry_for_s: float = 10.0) -> Metadata:
    clock = clock or Clock()
    return Metadata(
        endpoint, retry_for_s=retry_for_s, monotonic=lambda: clock.now, sleep=clock.sleep
    )


def test_identity_and_user_data_need_one_token() -> None:
    with MetadataServer(INSTANCE) as server:
        metadata = client(server.endpoint)
        assert metadata.identity() == Identity(
            "i-0abc", "m5.large", "us-east-1b", "127.71.0.9", "spot"
        )
        assert metadata.user_data() == '{"version":1}'
        assert len(server.tokens) == 1


def test_a_machine_without_a_lifecycle_is_on_demand() -> None:
    without = {key: value for key, value in INSTANCE.items() if not key.endswith("life-cycle")}
    with MetadataServer(without) as server:
        assert client(server.endpoint).identity().lifecycle == "on-demand"


def test_an_expired_token_is_replaced() -> None:
    with MetadataServer(INSTANCE) as server:
        metadata = client(server.endpoint)
        metadata.get("user-data")
        server.tokens.clear()
        assert metadata.get("user-data") == '{"version":1}'


def test_temporary_failures_are_retried() -> None:
    clock = Clock()
    with MetadataServer(INSTANCE) as server:
        server.failures = [503, 500, 429]
        assert client(server.endpoint, clock).user_data() == '{"version":1}'
    assert clock.pauses_s == [0.1, 0.2, 0.4]


def test_a_service_that_never_answers_is_named_with_the_time_waited() -> None:
    clock = Clock()
    endpoint = f"http://127.71.0.2:{free_port('127.71.0.2')}"
    with pytest.raises(
        MetadataUnavailable, match=f"{endpoint} does not serve metadata within 10 s: .*refused"
    ):
        client(endpoint, clock).user_data()
    assert 8 < clock.now <= 10


def test_a_machine_without_user_data_is_refused() -> None:
    with (
        MetadataServer({}) as server,
        pytest.raises(
            MetadataUnavailable, match="has no user-data: this machine was not launched by mesaform"
        ),
    ):
        client(server.endpoint).user_data()


def test_a_disabled_service_is_not_retried() -> None:
    clock = Clock()
    with MetadataServer(INSTANCE) as server:
        server.failures = [403]
        with pytest.raises(MetadataUnavailable, match="gives no token \\(answers 403\\)"):
            client(server.endpoint, clock).user_data()
    assert clock.pauses_s == []


def test_the_endpoint_comes_from_the_variable_of_awss_tools() -> None:
    with MetadataServer(INSTANCE) as server:
        assert (
            Metadata.from_environment(
                {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint + "/"}
            ).user_data()
            == '{"version":1}'
        )
    assert Metadata.from_environment({})._endpoint == "http://169.254.169.254"
