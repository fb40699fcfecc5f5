"""The import law of the house, enforced on source text: who may import whom, which libraries where, and no cycle.

Every import counts, also those inside functions and under TYPE_CHECKING: an arrow in the wrong direction stays one
however late it is drawn. Only the lazy face, `core/__init__.py`, may name everything below it for the type checker.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("core", "datasets", "domains")

L0 = (
    "errors shapes geometry bands sensors rng plan batch groups voxel_masks resize registry config contract preprocess "
    "pictures"
)
L1 = (
    "patch_embed pos_embed projection text views mask_bank maskers fills targets teachers predictors encoders losses heads "
    "weights foreign hub layouts"
)
L2 = "recipes"
L3 = "engine checkpoint inference evaluate finetune viz report cli zoo"
LEVEL = {name: level for level, names in enumerate((L0, L1, L2, L3)) for name in names.split()}

NUMERIC = {"numpy", "torch"}
LIBRARIES = {
    "config": {"yaml"},
    "encoders": {"timm", "monai"},
    "predictors": {"timm", "monai"},
    "weights": {"safetensors"},
    "maskers": {"skimage"},
}
LIBRARIES_OF_L3 = {"safetensors", "yaml", "rich", "sklearn", "torchmetrics", "scipy", "PIL", "pyarrow"}
LIBRARIES_OF_DATASETS = {
    "PIL",
    "pyarrow",
    "dask",
    "nibabel",
    "tifffile",
    "rasterio",
    "zarr",
    "pydicom",
    "openslide",
    "h5py",
    "pyhdf",
    "numcodecs",
    "google_crc32c",
    "isal",
    "xarray",
    "distributed",
    "tokenizers",
    "rich",
    "yaml",
}

# Slow to import, or not installed with the base: only inside the function that needs them, and for the type checker.
LATE = {"nibabel", "tifffile", "dask", "rasterio", "zarr", "pydicom", "openslide", "h5py", "monai", "yaml", "sklearn"}
LATE |= {"pyhdf", "numcodecs", "google_crc32c", "isal", "xarray", "distributed", "skimage", "tokenizers"}
LATE |= {"torchmetrics", "scipy", "tensorboard", "torch.utils.tensorboard", "lightly", "transformers"}
LATE_IN_CORE = {"PIL", "pyarrow", "rich"}


@dataclass(frozen=True)
class Import:
    """One import statement: who, what, where, and whether Python runs it when the module is loaded."""

    importer: str
    imported: str
    line: int
    at_load: bool

    @property
    def place(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules_of(root: Path) -> dict[str, Path]:
    """Map the dotted name of every module of the three packages to its file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _statements(tree: ast.AST, at_load: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    for node in ast.iter_child_nodes(tree):
        yield node, at_load
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        yield from _statements(node, at_load and not late)


def _named(node: ast.AST, importer: str, is_package: bool, known: dict[str, Path]) -> list[str]:
    """List what one node imports, as dotted module names: a name taken from a package is a module if there is one."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = importer.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            base = ".".join([*parts, base] if base else parts)
        return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
        first = node.args[0] if node.args else None
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def imports_of(root: Path) -> list[Import]:
    """Read every import of the three packages."""
    known = modules_of(root)
    found = []
    for importer, path in known.items():
        for node, at_load in _statements(ast.parse(path.read_text(encoding="utf-8"))):
            for imported in _named(node, importer, path.name == "__init__.py", known):
                found.append(Import(importer, imported, getattr(node, "lineno", 0), at_load))
    return found


def level_of(module: str) -> float:
    """Place a module of ours on the ladder, -1 for none; datasets stand beside the parts, on their own branch."""
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    if package == "domains":
        return 4
    if package == "datasets":
        return 1
    if part == "testing":  # the exams read everything in core and nothing in core reads them
        return 3.5
    return LEVEL.get(part, -1)


def _ours_allowed(step: Import) -> bool:
    importer, imported = step.importer.split("."), step.imported.split(".")
    if importer == ["core"]:
        return imported[0] == "core" and not step.at_load
    if imported == ["core"] or (imported[0] == "domains" and len(imported) == 1):
        return importer[0] == "domains"  # the public face is for users, domains and tests
    if importer[0] == "domains":
        return imported[0] != "domains" or imported[1] in (importer[1], "verbs")  # what every domain does the same way
    if imported[0] == "domains":
        return False
    if importer[0] == "datasets":
        return imported[0] == "datasets" or level_of(step.imported) == 0
    return imported[0] == "core" and level_of(step.imported) <= level_of(step.importer)


def _library_allowed(step: Import) -> bool:
    package, _, rest = step.importer.partition(".")
    library = step.imported.partition(".")[0]
    if package == "domains" or ".testing" in step.importer:
        return True
    if package == "datasets":
        return library in NUMERIC | LIBRARIES_OF_DATASETS
    if not rest:
        return False  # the face imports nothing heavy
    allowed = NUMERIC | LIBRARIES.get(rest.partition(".")[0], set())
    return library in (allowed | LIBRARIES_OF_L3 if level_of(step.importer) == 3 else allowed)


def breaches(root: Path) -> list[str]:
    """List every import against the law, as `importer:line imports what`, and every module that the law forgot."""
    known = [name for name in modules_of(root) if name != "core"]
    found = [f"{name} has no place on the ladder: give it one here" for name in known if level_of(name) < 0]
    for step in imports_of(root):
        library = step.imported.partition(".")[0]
        if library in sys.stdlib_module_names:
            continue
        allowed = _ours_allowed(step) if library in PACKAGES else _library_allowed(step)
        slow = LATE | LATE_IN_CORE if step.importer.startswith("core") else LATE
        late = next((name for name in slow if f"{step.imported}.".startswith(f"{name}.")), None)
        if not allowed:
            found.append(step.place)
        elif late and step.at_load:
            found.append(f"{step.place} when it is loaded; {late} belongs inside the function that needs it")
    return found


def cycles(root: Path) -> list[str]:
    """List import cycles among our modules, one `a -> b -> a` each; the lazy face is left out."""
    known = modules_of(root)
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for step in imports_of(root):
        if step.imported in known and step.imported != step.importer and "core" not in (step.importer, step.imported):
            arrows[step.importer].add(step.imported)
    found, done = [], set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for following in sorted(arrows[name]):
                walk(following, [*path, name])
            done.add(name)

    for name in known:
        walk(name, [])
    return found


def _tree(root: Path, **sources: str) -> Path:
    """Write a small house: `core__engine__loop="import torch"` becomes core/engine/loop.py."""
    for name, source in sources.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\n", encoding="utf-8")
    return root


def test_every_import_obeys_the_layer_table() -> None:
    assert len(imports_of(ROOT)) > 50, "the test looked at no source"
    assert breaches(ROOT) == []


def test_no_import_cycle() -> None:
    assert cycles(ROOT) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core__shapes", "from core.maskers import random"),
        ("core__shapes", "import einops"),
        ("core__maskers__random", "from core.recipes.mae import Mae"),
        ("core__maskers__random", "import timm"),
        ("core__recipes__mae", "from core.engine.loop import fit"),
        ("core__recipes__mae", "import core"),
        ("core__engine__loop", "from datasets.loader import TileLoader"),
        ("core__engine__loop", "def f():\n    import datasets"),
        ("core__engine__loop", "import importlib\nimportlib.import_module('datasets.loader')"),
        (
            "core__engine__loop",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from domains.retina import domain",
        ),
        ("core__evaluate__knn", "import sklearn.neighbors"),
        ("core__engine__log", "from torch.utils.tensorboard import SummaryWriter"),
        ("core__encoders__vit", "import monai"),
        ("datasets__tiles", "from core.maskers import random"),
        ("datasets__tiles", "from domains.retina import domain"),
        ("datasets__readers__nifti", "import nibabel"),
        ("datasets__index", "import pandas"),
        ("core__report__page", "import pyarrow"),
        ("core__novelty", ""),
        ("domains__retina__pretrain", "from domains.satellite import domain"),
        ("domains__verbs__pretrain", "from domains.retina import domain"),
        ("core__maskers__random", "from ..recipes import mae"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, source: str) -> None:
    root = _tree(tmp_path, **{"core__recipes__mae": "", "core__maskers__random": "", module: source})
    assert len(breaches(root)) == 1, breaches(root)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core__maskers__random", "import torch\nfrom core.plan import Plan"),
        ("core__encoders__vit", "import timm"),
        ("core__recipes__mae", "from core.maskers import random"),
        ("core__config", "def load():\n    import yaml"),
        ("datasets__readers__nifti", "from core.geometry import Affine\ndef open():\n    import nibabel"),
        (
            "domains__retina__pretrain",
            "import core\nfrom datasets.loader import L\nfrom domains.retina.domain import F\nfrom domains.verbs import pretrain",
        ),
    ],
)
def test_a_legal_import_passes(tmp_path: Path, module: str, source: str) -> None:
    assert breaches(_tree(tmp_path, **{module: source})) == []


def test_a_cycle_through_a_function_is_found(tmp_path: Path) -> None:
    root = _tree(tmp_path, core__plan="import core.shapes", core__shapes="def f():\n    from core.plan import Plan")
    assert cycles(root) == ["core.plan -> core.shapes -> core.plan"]
