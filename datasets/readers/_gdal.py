"""GDAL on a short lead: one driver, an absolute local path, nothing beside the file, no threads, no words on stderr.

Shared by the readers of scenes. Handles are borrowed per process and thread; a source is a few numbers and pickles.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import BudgetError, DamagedError, DataError
from core.preprocess import Window
from datasets.handles import borrow, discard
from datasets.image import Source
from datasets.readers import _tiff
from datasets.readers._typed import typed


@dataclass(frozen=True)
class Handle:
    """What names an open GDAL dataset: all that decides what it gives.

    Attributes:
        path: absolute.
        stamp: the file's size and time of modification when it was first opened; another file is not read for it.
        driver: the only GDAL driver that may open it.
        sidecars: whether GDAL may look beside the file.
        level: 0, or the number of an overview.
    """

    path: str
    stamp: tuple[int, int]
    driver: str
    sidecars: bool
    level: int

    def at(self, level: int) -> Handle:
        """The same file at another level."""
        return Handle(self.path, self.stamp, self.driver, self.sidecars, level)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """A name that is quick to look up."""
        return ("geotiff", self.path, self.stamp, self.driver, self.sidecars, self.level)

    def dataset(self) -> Any:
        """Borrow this thread's open dataset."""
        return borrow(self.key, self._open)

    def _open(self) -> Any:
        # MB of decoded blocks, for the whole process. GDAL reads it once, at its first block; left alone it takes 5 % of
        # the machine's memory in every worker (1.2 GB of 24).
        os.environ.setdefault("GDAL_CACHEMAX", "64")
        from rasterio.env import Env
        from rasterio.errors import NotGeoreferencedWarning
        from rasterio.io import DatasetReader
        from rasterio.session import DummySession

        stat = Path(self.path).stat()
        if (stat.st_size, stat.st_mtime_ns) != self.stamp:
            raise DamagedError(f"{self.path}: the file was replaced after it was opened; open it again.")
        # A flag says it. The filter is for warnings raised by this module only, so nobody else's are touched.
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=__name__.replace(".", r"\."))
        options: dict[str, object] = {"OVERVIEW_LEVEL": self.level - 1} if self.level else {}
        if self.driver == "GTiff":
            options["NUM_THREADS"] = 1
            if not self.sidecars:
                options["GEOREF_SOURCES"] = "INTERNAL"
        with Env(session=DummySession(), **_environment(self.sidecars)):
            return DatasetReader(self.path, driver=self.driver, sharing=False, **options)


def _environment(sidecars: bool) -> dict[str, object]:
    alone = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": False}
    return {"GDAL_NUM_THREADS": 1, **({} if sidecars else alone)}


@dataclass(frozen=True, kw_only=True)
class SceneSource(Source):
    """Windows of one file through GDAL.

    Attributes:
        handle: which file.
        indexes: GDAL's number, from 1, of each band.
        itemsize: bytes of a voxel.
        max_bytes: of a window.
        mask: where the file says what is measured.
        alpha: GDAL's number of the alpha band, 0 = none.
        holes: the directory whose never written blocks are not measured.
    """

    handle: Handle
    indexes: tuple[int, ...]
    itemsize: int
    max_bytes: int
    mask: Literal["none", "mask", "alpha"]
    alpha: int
    holes: _tiff.Directory | None

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read by GDAL, in one call for all bands."""
        rows, columns = window
        size = (rows.stop - rows.start) * (columns.stop - columns.start) * len(bands) * self.itemsize
        if size > self.max_bytes:
            raise BudgetError(
                f"{self.handle.path}: expected windows of at most {self.max_bytes / 1e9:g} GB, {_text(window)} takes "
                f"{size / 1e9:.1f} GB; read smaller windows, or raise the budget: "
                f"{typed(f'geotiff.max_bytes={size}')}."
            )
        return self._ask("read", window, [self.indexes[band] for band in bands])

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Give what the file's mask or alpha band says, less the blocks that were never written."""
        mask: np.ndarray | None = None
        if self.mask == "mask":
            mask = self._ask("read_masks", window, [self.indexes[0]]) != 0
        elif self.mask == "alpha":
            mask = self._ask("read", window, [self.alpha]) != 0
        if self.holes is None:
            return mask
        written = self._written(self.holes, window, bands)
        return written if mask is None else mask & written

    def _written(self, page: _tiff.Directory, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        missing = borrow((*self.handle.key, "holes"), lambda: _tiff.never_written(Path(self.handle.path), page))
        rows, columns = (
            np.arange(part.start, part.stop) // block for part, block in zip(window, page.block, strict=True)
        )
        planes = np.array([self.indexes[band] - 1 for band in bands] if page.separate else [0])
        written: np.ndarray = ~missing[np.ix_(planes, rows, columns)]
        return written

    def _ask(self, method: Literal["read", "read_masks"], window: Window, indexes: list[int]) -> np.ndarray:
        rows, columns = window
        box = ((rows.start, rows.stop), (columns.start, columns.stop))
        try:
            dataset = self.handle.dataset()
            if self.handle.driver == "GTiff":
                voxels: np.ndarray = getattr(dataset, method)(indexes, window=box)
                return voxels
            from rasterio.env import Env
            from rasterio.session import DummySession

            with Env(
                session=DummySession(), **_environment(self.handle.sidecars)
            ):  # OpenJPEG takes threads when it reads
                voxels = getattr(dataset, method)(indexes, window=box)
            return voxels
        except DataError:
            raise
        except Exception as error:  # GDAL's errors arrive as several unrelated classes of rasterio
            discard(self.handle.key)
            raise DamagedError(
                f"{self.handle.path}: expected a whole scene, but {_text(window)} cannot be decoded ({reason(error)}); "
                "copy it again or remove it."
            ) from None


def _text(window: Window) -> str:
    rows, columns = window
    return f"window rows {rows.start}-{rows.stop}, columns {columns.start}-{columns.stop}"


def reason(error: BaseException) -> str:
    """GDAL's own words: rasterio's outer message only points to them."""
    return str(error.__cause__ or error).strip().rstrip(".")
