"""Nothing that halfseen installs may bring Hugging Face's `datasets`, whose import name is ours."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import TypeGuard

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_layers import PACKAGES, imports_of

ROOT = Path(__file__).resolve().parent.parent
FORBIDDEN = "datasets"
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "google_crc32c": "google-crc32c"}
DISTRIBUTIONS |= {"openslide": "openslide-python", "skimage": "scikit-image"}
# What a module imports inside a function, with an error that names the extra.
ON_DEMAND = ("dicom", "slide", "hdf", "xarray", "cluster", "superpixel", "text")


def closure(roots: Iterable[str], where: list[str] | None = None) -> dict[str, str]:
    """Follow installed requirements and give {distribution: chain of names that leads to it}.

    A distribution that is required but not installed is named all the same; its own requirements are unknown.
    """
    search = {} if where is None else {"path": where}
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions(**search)}
    chains: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()

    def walk(text: str, chain: str, extras_of_parent: tuple[str, ...]) -> None:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras_of_parent)):
            return
        name = canonicalize_name(requirement.name)
        chain = f"{chain} -> {name}"
        chains.setdefault(name, chain)
        extras = tuple(sorted(requirement.extras))
        for extra in ("", *extras):
            if (name, extra) in seen or name not in installed:
                continue
            seen.add((name, extra))
            for needed in installed[name].requires or []:
                walk(needed, chain, (extra,))

    for root in roots:
        walk(root, "halfseen", ())
    return chains


def declared() -> dict[str, list[str]]:
    """Give the requirements that pyproject.toml states: those of the base under "", and those of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def _name(text: str) -> str:
    return canonicalize_name(Requirement(text).name)


def test_no_requirement_brings_hugging_face_datasets() -> None:
    found = closure(entry for entries in declared().values() for entry in entries)
    assert FORBIDDEN not in found, found[FORBIDDEN]
    assert {"torch", "timm", "huggingface-hub", "pyarrow", "pytest"} <= set(found), "the walk did not reach the base"


def test_hugging_face_datasets_is_not_installed_beside_ours() -> None:
    assert FORBIDDEN not in {canonicalize_name(d.metadata["Name"]) for d in distributions()}


def test_every_requirement_has_a_range() -> None:
    entries = [entry for entries in declared().values() for entry in entries if _name(entry) != "halfseen"]
    assert [entry for entry in entries if not Requirement(entry).specifier] == []


def test_the_base_is_what_the_product_imports() -> None:
    roots = {step.imported.partition(".")[0] for step in imports_of(ROOT) if ".testing" not in step.importer}
    imported = {DISTRIBUTIONS.get(root, root) for root in roots - set(sys.stdlib_module_names) - set(PACKAGES)}
    # timm imports torchvision; openslide-python finds its library in openslide-bin.
    named = {_name(entry) for extra in ("", *ON_DEMAND) for entry in declared()[extra]}
    assert imported | {"torchvision", "openslide-bin"} == named


def test_dev_brings_all_that_tests_import() -> None:
    nodes = (n for path in (ROOT / "tests").rglob("*.py") for n in ast.walk(ast.parse(path.read_text("utf-8"))))
    named = [
        [a.name for a in n.names] if isinstance(n, ast.Import) else [n.module or ""] for n in nodes if _absolute(n)
    ]
    roots = {name.partition(".")[0] for names in named for name in names} - set(sys.stdlib_module_names)
    there = {_name(entry) for extra in ("", "dev", "tensorboard", *ON_DEMAND) for entry in declared()[extra]}
    assert {DISTRIBUTIONS.get(root, root) for root in roots} - there <= {*PACKAGES, "tests", "benchmarks", "nbformat"}


def _absolute(node: ast.AST) -> TypeGuard[ast.Import | ast.ImportFrom]:
    return isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.level == 0)


def test_constraints_pin_what_make_installs_within_its_ranges() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pinned)
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pinned}
    entries = [
        entry
        for extra in ("", "dev", "tensorboard", *ON_DEMAND)
        for entry in declared()[extra]
        if _name(entry) != "halfseen"
    ]
    assert [e for e in entries if not Requirement(e).specifier.contains(versions.get(_name(e), "0"))] == []


def _install(site: Path, name: str, requires: list[str]) -> None:
    """Write the metadata of a distribution that is not there."""
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_hidden_requirement_is_found_with_the_chain_that_brings_it(tmp_path: Path) -> None:
    _install(tmp_path, "middle", ["deep[hub]>=1"])
    _install(tmp_path, "deep", ["Datasets>=2 ; extra == 'hub'", "never ; extra == 'other'"])
    found = closure(["middle>=1"], [str(tmp_path)])
    assert found == {
        "middle": "halfseen -> middle",
        "deep": "halfseen -> middle -> deep",
        "datasets": "halfseen -> middle -> deep -> datasets",
    }


def test_an_extra_that_nobody_asks_for_is_not_followed(tmp_path: Path) -> None:
    _install(tmp_path, "middle", ["datasets ; extra == 'dev'"])
    assert closure(["middle"], [str(tmp_path)]) == {"middle": "halfseen -> middle"}
