"""moto's server as a process of its own: `python aws_server.py <address> <port>`.

It has the corrections of the project's local cloud that Terraform can see. A launch template
launches without its own tags. A launch waits for its instance profile. An instance reports the
groups of its first interface, and its end removes its interfaces and addresses. Reserved addresses
of a subnet are given only by name.

Calls are answered one at a time: moto is not safe for threads, and rules of one group that are
removed at once end in InvalidPermission.NotFound.
"""

from __future__ import annotations

import sys
from ipaddress import ip_address
from threading import Lock

from moto.ec2.models.amis import Ami
from moto.ec2.models.instances import Instance
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.instances import InstanceResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple

from mesaform.localcloud.moto_patches import launch, network_options, queues, templates


def interfaces_as_on_aws() -> None:
    prepare = Instance.prep_nics

    def prep_nics(self, *args, **kwargs):
        prepare(self, *args, **kwargs)
        for nic in self.nics.values():
            nic.delete_on_termination = True
        if 0 in self.nics:
            self.security_groups = list(self.nics[0].group_set)

    Instance.prep_nics = prep_nics


def images_as_on_aws() -> None:
    """RegisterImage's architecture, which moto drops; all images of these tests have the same."""
    prepare = Ami.__init__

    def init(self, *args, **kwargs):
        prepare(self, *args, **kwargs)
        if self.architecture is None:
            self.architecture = "x86_64"

    Ami.__init__ = init


def profiles_as_on_aws() -> None:
    """EC2's refusal of a launch before its profile exists; the provider repeats such a launch."""
    run = InstanceResponse.run_instances

    def run_instances(self):
        launch.require_profile(self.ec2_backend, self.params.get("IamInstanceProfile"))
        return run(self)

    InstanceResponse.run_instances = run_instances


def reservations_as_on_aws() -> None:
    next_address = Subnet.get_available_subnet_ip

    def get_available_subnet_ip(self, instance):
        while True:
            address = next_address(self, instance)
            if not any(
                ip_address(address) in item.cidr
                for item in self._cidr_reservations
                if item.reservation_type == "explicit"
            ):
                return address
            del self._subnet_ips[address]

    Subnet.get_available_subnet_ip = get_available_subnet_ip


def serve(address: str, port: int) -> None:
    moto, turn = DomainDispatcherApplication(create_backend_app), Lock()

    def one_at_a_time(environ, start_response):
        with turn:
            return moto(environ, start_response)

    run_simple(address, port, one_at_a_time, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    images_as_on_aws()
    reservations_as_on_aws()
    templates.apply()
    network_options.apply()
    queues.apply()
    interfaces_as_on_aws()
    profiles_as_on_aws()
    serve(sys.argv[1], int(sys.argv[2]))
