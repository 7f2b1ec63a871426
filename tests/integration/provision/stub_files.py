"""Texts that the tests share."""


def cluster_text(name: str) -> str:
    """A small cluster whose addresses are not this host's, so that tests share none."""
    return f"""\
name: {name}
network: {{cidr: 10.60.0.0/16}}
local: {{machines: containers}}
agents:
  - name: default
    types: [m5.large, m5.xlarge]
"""
