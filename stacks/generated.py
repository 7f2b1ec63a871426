"""The generated classes of CDKTF's AWS provider, loaded one by one.

The generated package imports all its 1,070 submodules from its `__init__`, which takes longer than
a whole deployment's plan. A module object with the package's own `__path__` replaces that
`__init__`, so that only the submodules of described kinds run (docs/adr/0001).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

from mesaform_stacks.description import Kind

PACKAGE = "cdktf_cdktf_provider_aws"
VERSION = "5.100.0"  # of hashicorp/aws, the one that the generated package was made from


def skip_package_init() -> None:
    """Make `import cdktf_cdktf_provider_aws.<resource>` load that resource alone. Idempotent.

    Raises:
        ModuleNotFoundError: the provider's package is not installed.

    """
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    package = types.ModuleType(PACKAGE)
    package.__spec__ = spec
    package.__file__ = spec.origin
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[PACKAGE] = package


def load(kind: Kind) -> types.ModuleType:
    """The generated module of a kind: its class and the classes of its blocks."""
    skip_package_init()
    prefix = "data_aws_" if kind.is_data else ""
    name = prefix + kind.terraform_type.removeprefix("aws_")
    return importlib.import_module(f"{PACKAGE}.{name}")
