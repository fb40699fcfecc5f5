"""Fine-tuning to classes of pixels: label rasters over scenes, blocks dealt to splits, windows, scores by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from core.cli import Options
from core.contract import Input
from core.errors import ConfigError, DataError, MissingDataError
from core.evaluate.segmentation import segmentation_scores
from core.evaluate.table import class_name
from core.finetune import Finetune, Mapped, Split, examine
from core.heads.base import HeadSpec
from core.heads.segment import Segment
from core.heads.upernet import UPerNet
from datasets import LazyImage, Manifest
from datasets.opening import Images as Opened
from domains.satellite.cells import Cell, blocks_of, cells_of, deal
from domains.satellite.collection import SATELLITE
from domains.satellite.domain import FLIPS
from domains.satellite.held_out import window_rows
from domains.satellite.labels import Classes, find_classes, named_beside, open_labels
from domains.satellite.scenes import scene_of
from domains.satellite.windows import LabelWindows
from domains.verbs.collection import say
from domains.verbs.features import BATCH, Images, open_images
from domains.verbs.finetune import FinetuneImages, tell, use_own
from domains.verbs.parts import Own
from domains.verbs.training import Learnt, check_tested, fit, join, print_scores, save


@dataclass(frozen=True, kw_only=True)
class LabelMaps:
    """Where the classes of pixels come from, and how they are learnt; of the task `segment` alone.

    Attributes:
        rasters: rasters of class numbers, laid over every scene that they overlap, the first ones on top; none = --label
            is the column that names a raster for each scene, beside the scene.
        raster_options: options of readers for the rasters, such as `geotiff.nodata=[0]` where 0 means no label.
        ignored: class numbers that are no labels.
        names: of classes, such as `2=forest`; others are called by their number.
        block: pixels along the side of the blocks that are dealt to training, validation and test; none = a window.
            Larger ones are more honest, because neighbouring pixels resemble each other.
        head: `segment`: a linear map of the last level; `upernet`: a pyramid of levels, for outlines.
        width: of the pyramid.
    """

    rasters: tuple[str, ...] = ()
    raster_options: tuple[str, ...] = ()
    ignored: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    block: int | None = None
    head: Literal["segment", "upernet"] = "segment"
    width: int = 128

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ConfigError(f"option 'block': expected pixels from 1, got {self.block}.")
        self.by_code()

    def by_code(self) -> dict[int, str]:
        """Give the names by class number.

        Raises:
            ConfigError: an entry that is not `number=name`.
        """
        found = {}
        for entry in self.names:
            code, equals, name = str(entry).partition("=")
            if not equals or not code.strip().lstrip("-").isdigit() or not name.strip():
                raise ConfigError(f"option 'names': expected number=name, such as 2=forest, got '{entry}'.")
            found[int(code)] = name.strip()
        return found


def run(config: FinetuneImages, maps: LabelMaps, options: Options, record: object) -> Path:
    """Train on windows of scenes, test on the cells of blocks, and save."""
    images, seed = config.images, config.training.seed
    encoder, manifest, entry = open_images(SATELLITE, images, labelled=not maps.rasters)
    manifest, own = use_own(manifest, config)
    opened = Opened(manifest)
    scenes = {row: opened.open(row) for row in range(len(manifest))}
    rasters = rasters_of(images, maps, manifest)
    every = {raster.path: raster for each in rasters for raster in each}
    found = find_classes(list(every.values()), maps.by_code(), maps.ignored)
    cells = labelled_cells(manifest, scenes, rasters, found, maps.block, entry)
    targets = targets_of(cells, found, config, own)
    say(described(cells, targets, scenes))
    shared = shared_ground(cells, targets)
    for sentence in shared:
        say(sentence)
    windows = LabelWindows(
        cells=cells,
        split=targets.split,
        scenes={row: scene_of(scenes[row], entry) for row in {cell.scene for cell in cells}},
        sizes={row: scene.size for row, scene in scenes.items()},
        entry=entry,
        flips=FLIPS,
        seed=seed,
        workers=images.workers,
    )
    about: dict[str, Any] = {"finetuned_from": images.encoder, "codes": list(found.codes), "window": list(entry.whole)}
    about |= {"split": own.said} if own.said else {}
    learnt = Learnt(targets, head_of(maps, len(found.names), config.training), "segment")
    model = join(encoder, learnt, seed=seed, ndim=2, about=about)
    events = fit(
        model,
        targets,
        config.training,
        windows.drawn(targets.rows("train").tolist(), config.batch_size),
        lambda: windows.whole(targets.rows("validation").tolist(), BATCH),
    )
    tested = examine(model.features, model.head, windows.whole(targets.rows("test").tolist(), BATCH), targets, "test")
    scores = segmentation_scores(
        tested.summary,
        [cells[row].block for row in tested.rows],
        found.names,
        features=own.tested("test blocks"),
        method=f"{maps.head}, {config.training.mode}",
        draws=config.draws,
        seed=seed,
    )
    print_scores(scores)
    save(options.out, model, record, events, scores, _table(cells, scenes, tested.rows, tested.summary), manifest)
    tell(SATELLITE, options, images, *window_rows(model, windows, cells, scenes, tested), warnings=shared)
    return options.out


def rasters_of(images: Images, maps: LabelMaps, manifest: Manifest) -> list[list[LazyImage]]:
    """Open the label rasters of each scene.

    Raises:
        MissingDataError: a raster that is named is not there.
        UnsafeError: a list names one outside its own folder.
    """
    if maps.rasters:
        paths = [[Path(name) for name in maps.rasters]] * len(manifest)
        for path in paths[0]:
            if not path.exists():
                raise MissingDataError(f"expected a label raster, but {path} does not exist.")
    else:
        assert images.label is not None
        names = enumerate(manifest.labels(images.label))
        outside = images.allow_outside
        paths = [
            [named_beside(manifest, row, name, what="the label raster", allow_outside=outside)] for row, name in names
        ]
    opened = {path: open_labels(path, maps.raster_options) for path in {path for each in paths for path in each}}
    return [[opened[path] for path in each] for each in paths]


def labelled_cells(
    manifest: Manifest,
    scenes: Mapping[int, LazyImage],
    rasters: Sequence[Sequence[LazyImage]],
    found: Classes,
    block: int | None,
    entry: Input,
) -> list[Cell]:
    """Cut all scenes into labelled cells.

    Raises:
        DataError: no scene has a labelled pixel.
    """
    steps: dict[str, tuple[float, float]] = {}
    size = (entry.whole[0], entry.whole[1])
    cells: list[Cell] = []
    for row, scene in scenes.items():
        own = None
        if scene.georeference is not None:
            own = steps.setdefault(scene.georeference.crs, scene.georeference.steps)
        blocks = blocks_of(scene, block or max(size), own, str(manifest.column("group")[row]))
        cells += cells_of(row, scene, rasters[row], found, blocks, size)
    if not cells:
        raise DataError(
            "expected labelled pixels on a scene, but no label raster has any where a scene lies (scenes looked at: "
            f"{len(scenes)}): compare their CRS and place."
        )
    return cells


def targets_of(cells: Sequence[Cell], found: Classes, config: FinetuneImages, own: Own) -> Mapped:
    """Deal the blocks, those of training scenes alone where a list names the part of each scene, and count what is there.

    A block of the ground that scenes of two parts of the list share is one of each part (see `shared_ground`).

    Raises:
        DataError: a class without training pixels, or fewer than two blocks to test on.
    """
    classes = len(found.names)
    pixels = np.stack([np.bincount(cell.label[cell.label >= 0], minlength=classes) for cell in cells])
    blocks = [cell.block for cell in cells]
    given: list[Split] = [own.split[cell.scene] if own.split else "train" for cell in cells]
    train = [row for row, part in enumerate(given) if part == "train"]
    shares = own.shares(config.validation, config.test)
    spread = deal([blocks[row] for row in train], pixels[train], *shares, config.training.seed)
    for row, part in zip(train, spread, strict=True):
        given[row] = part
    parts = parts_of_blocks(cells, given)
    groups = [f"{block}, {part}" if len(parts[block]) > 1 else block for block, part in zip(blocks, given, strict=True)]
    tested = {group for group, part in zip(groups, given, strict=True) if part == "test"}
    check_tested(tested, f"labelled blocks (of {len(set(blocks))}; --block sets their size)")
    return Mapped(pixels=torch.from_numpy(pixels), names=found.names, groups=tuple(groups), split=tuple(given))


def parts_of_blocks(cells: Sequence[Cell], split: Sequence[Split]) -> dict[str, set[Split]]:
    """Say of each block of the ground in which parts it has cells."""
    parts: dict[str, set[Split]] = {}
    for cell, part in zip(cells, split, strict=True):
        parts.setdefault(cell.block, set()).add(part)
    return parts


def shared_ground(cells: Sequence[Cell], targets: Mapped) -> list[str]:
    """Say how many blocks of the ground a list's own split has put into several parts."""
    parts = parts_of_blocks(cells, targets.split)
    shared = sum(len(each) > 1 for each in parts.values())
    if not shared:
        return []
    return [
        f"{shared:,} of {len(parts):,} blocks of the ground are in several parts of the list's own split, because scenes touch "
        "or overlap: the model may be scored on ground that it has learnt. --split=dealt keeps blocks apart."
    ]


def head_of(maps: LabelMaps, classes: int, training: Finetune) -> HeadSpec:
    """Describe the head."""
    if maps.head == "upernet":
        return UPerNet(num_classes=classes, width=maps.width)
    return Segment(num_classes=classes, batch_norm=training.mode == "linear")


def described(cells: Sequence[Cell], targets: Mapped, scenes: Mapping[int, LazyImage]) -> str:
    """Say in one sentence what is learnt from what."""
    parts = []
    for part in ("train", "validation", "test"):
        rows = targets.rows(part)
        count = ", ".join(
            f"{class_name(name)}: {n}" for name, n in zip(targets.names, targets.count(part).tolist(), strict=True)
        )
        parts.append(f"{part} {len({cells[row].block for row in rows.tolist()})} blocks (pixels of {count})")
    return f"{len({cell.scene for cell in cells})} of {len(scenes)} scenes have labels: " + "; ".join(parts)


def _table(cells: Sequence[Cell], scenes: Mapping[int, LazyImage], rows: np.ndarray, tables: np.ndarray) -> pa.Table:
    """One line per test cell: where it is, and how much of it was right."""
    tested = [cells[row] for row in rows]
    boxes = np.array([cell.box for cell in tested])
    return pa.table(
        {
            "file": [str(scenes[cell.scene].path) for cell in tested],
            "block": [cell.block for cell in tested],
            **{name: boxes[:, n] for n, name in enumerate(("row_start", "row_stop", "column_start", "column_stop"))},
            "labelled": tables.sum((1, 2)),
            "right": np.trace(tables, axis1=1, axis2=2),
        }
    )
