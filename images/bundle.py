"""The bundle that a bake uploads: wheel, locks, recipe and the builder's program.

Its bytes depend on the sources alone, so that the digest describes what is installed. The wheel is
written here and not by a build backend: that needs no network and no installed backend, and the
image's wheel has fewer modules (`module_graph`).
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mesaform.common.architecture import ARCHITECTURES, Architecture
from mesaform.common.errors import BadInput, MissingPrerequisite
from mesaform_images import module_graph
from mesaform_images.builder import recipe as builder_recipe
from mesaform_images.engine_source import EngineSource, engine_source

OVERRIDES_VARIABLE = "MESAFORM_RECIPE"
"""Environment variable with the path of a file that replaces fields of images/recipe.toml."""

DIGEST_LENGTH = 16
"""Hex digits of SHA-256 that name a recipe: 64 bits, enough for the recipes of an account."""

SOURCE, PACKAGE = "cluster", "mesaform"
BUILDER_PACKAGE = "mesaform_images"
EPOCH = (1980, 1, 1, 0, 0, 0)
_BUILDER = (
    "recipe.toml",
    "requirements.lock",
    "bootstrap.lock",
    "ansible.lock",
    "sbom.lock",
    "start.py",
    "site.yml",
)
_JUNK_SUFFIXES = frozenset({".pyc", ".pyo", ".swp", ".orig", ".rej"})


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parts of images/recipe.toml that the operator's machine needs.

    `base_parameters` are SSM parameters that name the base images. Without an `engine_source` the
    images have no Apache Mesos; without `has_session_manager` not the agent for `debug: ssm`.
    """

    base_parameters: Mapping[Architecture, str]
    instance_types: Mapping[Architecture, str]
    disk_gib: int
    engine_source: EngineSource | None
    has_session_manager: bool
    entry_points: tuple[str, ...]
    package_data: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of an image: content by path in the bundle and in the wheel."""

    recipe: Recipe
    version: str
    builder: Mapping[str, bytes]
    wheel: Mapping[str, bytes]

    def digest(self) -> str:
        """Return the recipe's name, which changes with any byte or path of the sources only."""
        total = hashlib.sha256()
        for kind, files in (("builder", self.builder), ("wheel", self.wheel)):
            for path, content in sorted(files.items()):
                total.update(f"{kind}\0{path}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        return total.hexdigest()[:DIGEST_LENGTH]

    @property
    def start_program(self) -> str:
        """The program that the builder's cloud-config runs."""
        return self.builder["start.py"].decode()

    def wheel_name(self) -> str:
        return f"mesaform-{self.version}-py3-none-any.whl"

    def wheel_bytes(self) -> bytes:
        """Return the wheel as a file."""
        record_path = f"mesaform-{self.version}.dist-info/RECORD"
        record = "".join(
            f"{path},sha256={_urlsafe(content)},{len(content)}\n"
            for path, content in sorted(self.wheel.items())
        )
        output = io.BytesIO()
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in [
                *sorted(self.wheel.items()),
                (record_path, f"{record}{record_path},,\n".encode()),
            ]:
                info = zipfile.ZipInfo(path, EPOCH)
                info.external_attr = 0o644 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, content)
        return output.getvalue()

    def bundle_bytes(self) -> bytes:
        """Return the bundle: a gzipped tar of the builder's files and the wheel."""
        files = {**self.builder, self.wheel_name(): self.wheel_bytes()}
        output = io.BytesIO()
        with (
            gzip.GzipFile(fileobj=output, mode="wb", mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for path, content in sorted(files.items()):
                info = tarfile.TarInfo(path)
                info.size, info.mode = len(content), 0o644
                archive.addfile(info, io.BytesIO(content))
        return output.getvalue()


@dataclass(frozen=True, slots=True)
class SourceLayout:
    """Where the sources of an image are: folders of packages, and the project's metadata.

    `overrides` is the operator's file with fields of the recipe.
    """

    package: Path
    images: Path
    version: str
    requires_python: str
    overrides: Path | None = None


def installed_layout() -> SourceLayout:
    """Return the sources of the installed program: of its checkout, or in its wheel.

    Raises:
        MissingPrerequisite: the program was installed without its sources.

    """
    import mesaform

    images = Path(__file__).resolve().parent
    root = images.parent
    if (root / "pyproject.toml").is_file() and (root / SOURCE).is_dir():
        return checkout_layout(root)
    if not (images / "recipe.toml").is_file():
        raise MissingPrerequisite(
            "the image's recipe is missing",
            where=str(images),
            fix="install the program again: pip install --force-reinstall mesaform",
        )
    project = metadata.metadata(PACKAGE)
    return SourceLayout(
        Path(next(iter(mesaform.__path__))).resolve(),
        images,
        project["Version"],
        project["Requires-Python"],
        _overrides(),
    )


def checkout_layout(root: Path) -> SourceLayout:
    """Return the sources of a checkout.

    Raises:
        MissingPrerequisite: a part of the checkout is missing.

    """
    project = tomllib.loads(_read(root / "pyproject.toml").decode())["project"]
    return SourceLayout(
        root / SOURCE,
        root / "images",
        project["version"],
        project["requires-python"],
        _overrides(),
    )


def _overrides() -> Path | None:
    path = os.environ.get(OVERRIDES_VARIABLE)
    return Path(path).expanduser().resolve() if path else None


def read_sources(layout: SourceLayout) -> Sources:
    """Read the sources of an image.

    Raises:
        MissingPrerequisite: a file is missing.
        BadInput: the recipe or a module cannot be parsed; the message names it.

    """
    builder = {name: _read(layout.images / name) for name in _BUILDER}
    if layout.overrides is not None:
        builder[builder_recipe.OVERRIDES] = _read(layout.overrides)
    builder[f"{BUILDER_PACKAGE}/__init__.py"] = _read(layout.images / "__init__.py")
    builder.update(
        {
            f"{BUILDER_PACKAGE}/builder/{path}": content
            for path, content in _tree(layout.images / "builder").items()
        }
    )
    roles = _tree(layout.images / "roles")
    builder.update({f"roles/{path}": content for path, content in roles.items()})
    recipe = _recipe(layout)
    package = {f"{SOURCE}/{path}": content for path, content in _tree(layout.package).items()}
    wheel = {
        PACKAGE + path.removeprefix(SOURCE): content
        for path, content in _image_files(recipe, package).items()
    }
    requirements = _read(layout.images / "requirements.in").decode()
    return Sources(
        recipe, layout.version, builder, {**wheel, **_wheel_metadata(layout, requirements)}
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingPrerequisite(
            error.strerror or str(error),
            where=str(path),
            fix="restore the checkout (git status), or install the program again",
        ) from None


def _recipe(layout: SourceLayout) -> Recipe:
    """The recipe with the operator's fields.

    Raises:
        MissingPrerequisite: a file is missing.
        BadInput: it cannot be read.

    """
    path, own = layout.images / "recipe.toml", layout.overrides
    if own is None:
        return parse_recipe(_read(path).decode(), str(path))
    return parse_recipe(_read(path).decode(), str(own), _read(own).decode())


def parse_recipe(text: str, where: str, own: str = "") -> Recipe:
    """Read images/recipe.toml, and the operator's file that replaces fields of it.

    Raises:
        BadInput: not TOML, or a field is unknown, missing or of the wrong type.

    """
    try:
        data = tomllib.loads(text)
        builder_recipe.override(data, tomllib.loads(own))
        return Recipe(
            base_parameters=_by_architecture(data["base"]["ssm_parameters"]),
            instance_types=_by_architecture(data["builder"]["instance_types"]),
            disk_gib=int(data["builder"]["disk_gib"]),
            engine_source=engine_source(data["engine"]),
            has_session_manager=bool(data["session_manager"]["url"]),
            entry_points=tuple(str(item) for item in data["wheel"]["entry_points"]),
            package_data=tuple(str(item) for item in data["wheel"]["package_data"]),
        )
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"not TOML: {error}", where=where) from None
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"missing or wrong: {error}", where=where, fix="compare with the file's version in git"
        ) from None


def installed_recipe() -> Recipe:
    """Return the recipe of the installed program.

    Raises:
        MissingPrerequisite: the program was installed without its sources.
        BadInput: images/recipe.toml cannot be read.

    """
    return _recipe(installed_layout())


def _by_architecture(table: Mapping[str, object]) -> dict[Architecture, str]:
    return {architecture: str(table[architecture]) for architecture in ARCHITECTURES}


def _image_files(recipe: Recipe, package: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of the image's wheel: modules that entry points import, and package data.

    Raises:
        BadInput: an entry point does not exist, or a module cannot be parsed.

    """
    paths = {
        module_graph.module_name(PACKAGE + path.removeprefix(SOURCE)): path
        for path in package
        if path.endswith(".py")
    }
    modules = _reachable(recipe, {name: package[path] for name, path in paths.items()})
    included = [paths[name] for name in modules] + list(_package_data(recipe, package))
    return {path: package[path] for path in sorted(included)}


def _reachable(recipe: Recipe, sources: Mapping[str, bytes]) -> frozenset[str]:
    try:
        return module_graph.reachable(recipe.entry_points, sources)
    except KeyError as error:
        raise BadInput(
            f"no module {error.args[0]}",
            where="images/recipe.toml: wheel.entry_points",
            fix="name existing modules of mesaform",
        ) from None
    except SyntaxError as error:
        raise BadInput(f"a module cannot be parsed: {error}", where=SOURCE) from None


def _package_data(recipe: Recipe, package: Iterable[str]) -> Iterator[str]:
    folders = tuple(f"{folder}/" for folder in recipe.package_data)
    for path in package:
        if path.startswith(folders) and not path.endswith(".py"):
            yield path


def _tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every source file below a folder by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _is_source(path.relative_to(folder))
    }


def _is_source(path: Path) -> bool:
    """Whether a file is neither hidden, nor a cache, nor a backup of an editor."""
    is_hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not (is_hidden or path.suffix in _JUNK_SUFFIXES or path.name.endswith("~"))


def _wheel_metadata(layout: SourceLayout, requirements: str) -> dict[str, bytes]:
    lines = ["Metadata-Version: 2.1", f"Name: {PACKAGE}", f"Version: {layout.version}"]
    lines += [f"Requires-Python: {layout.requires_python}"]
    lines += [
        f"Requires-Dist: {line}"
        for line in sorted(map(str.strip, requirements.splitlines()))
        if line and not line.startswith("#")
    ]
    wheel = "Wheel-Version: 1.0\nGenerator: mesaform\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    folder = f"{PACKAGE}-{layout.version}.dist-info"
    return {
        f"{folder}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{folder}/WHEEL": wheel.encode(),
    }


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
