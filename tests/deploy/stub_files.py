"""Texts that the tests share."""

CLUSTER_FILE = """\
name: deployed
network: {cidr: 127.60.0.0/16}
agents:
  - name: default
    types: [m5.large, m5.xlarge]
"""
