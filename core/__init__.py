"""halfseen's core: masked image modeling in 2D, 3D and many bands. Data enters as arguments; no file of pixels is opened here.

Names are resolved on first use: every loader worker imports `core.*`, and timm alone takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.batch import Batch
    from core.contract import Contract, Input, Normalisation
    from core.encoders.cards import list_encoders
    from core.encoders.load import Encoder, load_encoder
    from core.errors import HalfseenError
    from core.heads.load import Model, load_model
    from core.recipes._facts import list_recipes
    from core.shapes import Grid, patchify, unpatchify

__version__ = "0.1.0"

_HOME = {
    "Batch": "core.batch",
    "Contract": "core.contract",
    "Encoder": "core.encoders.load",
    "Grid": "core.shapes",
    "HalfseenError": "core.errors",
    "Input": "core.contract",
    "Model": "core.heads.load",
    "Normalisation": "core.contract",
    "list_encoders": "core.encoders.cards",
    "list_recipes": "core.recipes._facts",
    "load_encoder": "core.encoders.load",
    "load_model": "core.heads.load",
    "patchify": "core.shapes",
    "unpatchify": "core.shapes",
}

__all__ = [
    "Batch",
    "Contract",
    "Encoder",
    "Grid",
    "HalfseenError",
    "Input",
    "Model",
    "Normalisation",
    "list_encoders",
    "list_recipes",
    "load_encoder",
    "load_model",
    "patchify",
    "unpatchify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'core' has no name '{name}'; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
