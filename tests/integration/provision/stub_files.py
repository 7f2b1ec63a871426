"""Texts that the tests share."""


def cluster_text(name: str) -> str:
    """A small cluster at addresses of these tests' own."""
    return f"""\
name: {name}
network: {{cidr: 127.60.0.0/16}}
agents:
  - name: default
    types: [m5.large, m5.xlarge]
"""
