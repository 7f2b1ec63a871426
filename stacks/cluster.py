"""A cluster as four stacks, one per rate of change. Pure."""

from __future__ import annotations

from mesaform_stacks.agents import AgentsStack
from mesaform_stacks.base import ClusterStack, Settings
from mesaform_stacks.masters import MastersStack
from mesaform_stacks.network import NetworkStack
from mesaform_stacks.notices import NoticesStack


def describe(settings: Settings) -> tuple[ClusterStack, ...]:
    """All stacks of a cluster, each after those that it refers to.

    Masters and agents depend on the network alone, so they are deployed side by side. Notices
    depend on nothing.
    """
    network = NetworkStack(settings)
    return (
        NoticesStack(settings),
        network,
        MastersStack(settings, network),
        AgentsStack(settings, network),
    )
