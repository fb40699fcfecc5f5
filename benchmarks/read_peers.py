"""Random crops as MONAI and TorchGeo give them, used as their own tutorials use them: one call, `count` samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def monai_crops(volumes: Sequence[Path], side: int, *, cached: int = 0) -> Callable[[int], None]:
    """Load a volume and cut one random cube per item, item after item; `cached` volumes stay decoded in memory."""
    from monai.data import CacheDataset, Dataset
    from monai.transforms import Compose, LoadImaged, RandSpatialCropd

    load = LoadImaged(keys="image", image_only=True, ensure_channel_first=True)
    crop = RandSpatialCropd(keys="image", roi_size=(side,) * 3, random_size=False)
    crop.set_random_state(seed=0)
    items = [{"image": str(path)} for path in volumes]
    chain = Compose([load, crop])
    dataset: Any = CacheDataset(items, chain, cache_num=cached, progress=False) if cached else Dataset(items, chain)
    turn = itertools.cycle(range(len(items)))

    def read(count: int) -> None:
        for _ in range(count):
            sample = dataset[next(turn)]["image"]
            assert sample.shape == (1, side, side, side)

    return read


def torchgeo_tiles(folder: Path, name: str, side: int) -> Callable[[int], None]:
    """Draw random tiles of one file through RasterDataset and RandomGeoSampler."""
    from torchgeo.datasets import RasterDataset
    from torchgeo.samplers import RandomGeoSampler, Units

    class Scene(RasterDataset):
        filename_glob = name

    dataset = Scene(str(folder))

    def read(count: int) -> None:
        for query in RandomGeoSampler(dataset, size=side, length=count, units=Units.PIXELS):
            assert dataset[query]["image"].shape[-2:] == (side, side)

    return read
