"""moto's server as a process of its own: `python aws_server.py <address> <port>`.

With what the project's local cloud repairs, as far as Terraform can see it: a launch template launches without its own
tags, and an instance reports the groups of its first interface.
"""

from __future__ import annotations

import sys

from moto.ec2.models.instances import Instance
from moto.server import main

from cluster.localcloud.repairs import templates


def report_groups_of_interfaces() -> None:
    prepare = Instance.prep_nics

    def prep_nics(self, *args, **kwargs):
        prepare(self, *args, **kwargs)
        if 0 in self.nics:
            self.security_groups = list(self.nics[0].group_set)

    Instance.prep_nics = prep_nics


if __name__ == "__main__":
    templates.apply()
    report_groups_of_interfaces()
    main(["-H", sys.argv[1], "-p", sys.argv[2]])
