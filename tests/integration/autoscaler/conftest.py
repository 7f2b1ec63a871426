"""Fixtures that several files of this folder share."""

from __future__ import annotations

from tests.integration.autoscaler.test_daemon import cluster, daemons, host, spec
from tests.integration.aws.conftest import bucket, cloud, moto_url

__all__ = ["bucket", "cloud", "cluster", "daemons", "host", "moto_url", "spec"]
