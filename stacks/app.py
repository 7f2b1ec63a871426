"""A cluster as four stacks, one per rate of change."""

from __future__ import annotations

from cdktf import App

from mesaform_stacks.agents import AgentsStack
from mesaform_stacks.base import Settings
from mesaform_stacks.masters import MastersStack
from mesaform_stacks.network import NetworkStack
from mesaform_stacks.notices import NoticesStack


def build(settings: Settings, outdir: str | None = None) -> App:
    """The app with all stacks of a cluster.

    Masters and agents depend on the network alone, so they are deployed side by side. Notices
    depend on nothing.
    """
    app = App(outdir=outdir) if outdir else App()
    NoticesStack(app, settings)
    network = NetworkStack(app, settings)
    MastersStack(app, settings, network)
    AgentsStack(app, settings, network)
    return app
