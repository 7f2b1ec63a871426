"""Node loads a provider's modules when they are used, and other modules as always."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import mesaform_stacks

USE = """
const provider = require(process.argv[1]);
const before = [...globalThis.loaded];
const { Vpc } = provider.vpc;
const seen = [Vpc, "Vpc" in provider.vpc, Object.keys(provider.vpc), { ...provider.vpc }.Vpc];
provider.vpc.Vpc;
console.log(JSON.stringify({ before, seen, after: globalThis.loaded }));
"""


def write_index(folder: Path) -> Path:
    """A provider's index with the modules `vpc` and `broken`; the latter cannot be loaded."""
    folder.mkdir(parents=True)
    (folder / "vpc.js").write_text(
        '(globalThis.loaded ??= []).push("vpc"); exports.Vpc = "a class";'
    )
    (folder / "broken.js").write_text('throw new Error("broken was loaded");')
    index = folder / "index.js"
    index.write_text(
        "globalThis.loaded ??= [];\n"
        'exports.vpc = require("./vpc");\nexports.broken = require("./broken");\n'
    )
    return index


def run_node(index: Path) -> subprocess.CompletedProcess[str]:
    assert "lazy_provider.cjs" in os.environ["NODE_OPTIONS"], mesaform_stacks.__name__
    return subprocess.run(
        ["node", "-e", USE, str(index)], capture_output=True, text=True, check=False
    )


def test_a_module_of_a_provider_is_loaded_once_and_only_when_it_is_used(tmp_path):
    index = write_index(tmp_path / "node_modules" / "@cdktf" / "provider-aws" / "lib")
    ended = run_node(index)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {
        "before": [],
        "seen": ["a class", True, ["Vpc"], "a class"],
        "after": ["vpc"],
    }


def test_modules_of_other_packages_are_loaded_at_once(tmp_path):
    index = write_index(tmp_path / "node_modules" / "@cdktf" / "other" / "lib")
    ended = run_node(index)
    assert ended.returncode != 0
    assert "broken was loaded" in ended.stderr
