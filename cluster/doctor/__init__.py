"""Checks of an AWS account before a cluster is created in it (docs/adr/0036)."""
