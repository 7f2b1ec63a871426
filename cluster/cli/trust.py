"""Trust of the operator's program in the ports of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.common.tls import Trust

if TYPE_CHECKING:
    from mesaform.cli.context import Context


def cluster_trust(context: Context) -> Trust | None:
    """The trust in the cluster's CA; None where the cluster has no TLS.

    The folder's copy serves; another checkout reads it from SSM first. Without a CA nothing is
    trusted: no master answers. A load balancer with a certificate of ACM is called by its own name,
    so that public CAs are trusted there as well.

    Raises:
        CloudError: SSM refused or did not answer.

    """
    if not context.spec.tls:
        return None
    from mesaform.provision.authority import certificates_file, refresh_copy

    file = certificates_file(context.cluster_dir)
    if not file.exists():
        context.enter_cloud()
        refresh_copy(context)
    balancer = context.spec.network.load_balancer
    return Trust(file, has_public=bool(balancer and balancer.host_name))
