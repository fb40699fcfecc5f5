"""halfseen's data plane: lazy images, manifests, and a loader whose every batch is a pure function of (seed, step).

The public face below is resolved on first use. This package is not Hugging Face's package of the same name; asking it
for one of theirs explains what happened and how to get the other one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets.image import LazyImage
    from datasets.index import build_manifest
    from datasets.loader import TileLoader, whole_batches
    from datasets.manifest import Manifest, split_groups
    from datasets.readers import open_image
    from datasets.reports import Reports, train_tokenizer, with_reports
    from datasets.sample import StreamSpec
    from datasets.samplers import Order, Schedule
    from datasets.synthetic import ct_set, sample_set, scene_set, slide_set
    from datasets.tiles import TileDataset
    from datasets.writers import write_image

__suite__ = "halfseen"

__all__ = [
    "LazyImage",
    "Manifest",
    "Order",
    "Reports",
    "Schedule",
    "StreamSpec",
    "TileDataset",
    "TileLoader",
    "build_manifest",
    "ct_set",
    "open_image",
    "sample_set",
    "scene_set",
    "slide_set",
    "split_groups",
    "train_tokenizer",
    "whole_batches",
    "with_reports",
    "write_image",
]

_HOME = {
    "LazyImage": "image",
    "Manifest": "manifest",
    "Order": "samplers",
    "Reports": "reports",
    "Schedule": "samplers",
    "StreamSpec": "sample",
    "TileDataset": "tiles",
    "TileLoader": "loader",
    "build_manifest": "index",
    "ct_set": "synthetic",
    "open_image": "readers",
    "sample_set": "synthetic",
    "scene_set": "synthetic",
    "slide_set": "synthetic",
    "split_groups": "manifest",
    "train_tokenizer": "reports",
    "whole_batches": "loader",
    "with_reports": "reports",
    "write_image": "writers",
}

_HUGGING_FACE = frozenset(
    "ClassLabel Dataset DatasetDict DownloadConfig Features IterableDataset Image Sequence Value concatenate_datasets "
    "disable_caching get_dataset_config_names interleave_datasets list_datasets load_dataset load_dataset_builder "
    "load_from_disk load_metric".split()
)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"datasets.{_HOME[name]}"), name)
    if name in _HUGGING_FACE:
        # Not an AttributeError: `from datasets import ...` would replace its message by one that explains nothing.
        raise ImportError(
            f"'datasets.{name}' belongs to Hugging Face's package, and this is halfseen's `datasets` ({__file__}): run "
            "code that needs theirs in an environment and a working folder of its own, outside this checkout; "
            "to read images here use datasets.open_image or datasets.build_manifest."
        )
    raise AttributeError(f"module 'datasets' (halfseen's) has no attribute '{name}'; it offers {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return [*__all__, "__suite__"]
