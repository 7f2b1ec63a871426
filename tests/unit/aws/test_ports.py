"""Ports are small and documented."""

from __future__ import annotations

import inspect

import pytest

from mesaform.aws import ports

MAX_METHODS = 9

PORTS = [
    port for name in ports.__all__ if getattr(port := getattr(ports, name), "_is_protocol", False)
]


def methods_of(port: type) -> dict[str, object]:
    return {
        name: member
        for name, member in vars(port).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_every_port_is_checked() -> None:
    names = {port.__name__ for port in PORTS}
    assert names == {
        "Control",
        "Fleet",
        "Ledger",
        "Notices",
        "PriceCache",
        "PriceList",
        "SpotFeed",
    }


@pytest.mark.parametrize("port", PORTS)
def test_a_port_has_at_most_nine_methods(port: type) -> None:
    assert 0 < len(methods_of(port)) <= MAX_METHODS


@pytest.mark.parametrize("port", PORTS)
def test_every_method_of_a_port_is_documented(port: type) -> None:
    for name, method in methods_of(port).items():
        assert inspect.getdoc(method), f"{port.__name__}.{name}"
