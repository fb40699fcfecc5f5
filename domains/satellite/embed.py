"""Describe whole scenes, larger than memory, by a pretrained encoder: one vector per tile, or a map of features.

    python -m domains.satellite.embed --encoder runs/mine --data scenes/ --out tiles.parquet
    python -m domains.satellite.embed --encoder runs/mine --data scene.tif --product=grid --out features.zarr
    python -m domains.satellite.embed --encoder runs/mine --data scene.tif --product=colours --out tokens.tif

tiles    GeoParquet, one row per window: file, time, rows and columns, outline, vector. Windows do not overlap.
grid     COG or Zarr with one pixel per token, georeferenced, one band per feature; windows are blended where they overlap.
colours  a COG of three bytes per token: the directions in which the tokens of that scene differ most, as red, green, blue.

What is not measured is left out: tiles and tokens of which less than half is data. With grid and colours, a page shows each
scene beside the colours of its tokens: NAME.report.html beside the file of a single scene, report.html beside those of
several. The memory that a run takes is said before it starts; --plan says it and stops. It runs in one process, without the
--scheduler of predict: tiles are rows of one file, and colours need all tokens of a scene first; give each machine its own
scenes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from core.cli import Options, Verb, main
from core.encoders.base import Pool
from core.encoders.load import Encoder, load_encoder
from core.errors import ConfigError
from core.report.maps import PICTURED, Sheet
from domains.satellite.covering import Job, Network, UnmeasuredError, covered, leave_out, memory_text
from domains.satellite.feature_maps import write_colours, write_grid
from domains.satellite.outputs import refuse_existing, remove, targets
from domains.satellite.pages import outdated, page_of, sheet_of_tokens, write_page
from domains.satellite.scenes import ALIASES, Reading, look, matched, open_scenes
from domains.satellite.tile_vectors import write_tiles
from domains.verbs.collection import say

Product = Literal["tiles", "grid", "colours"]
_ENDINGS: dict[Product, tuple[str, ...]] = {"tiles": (".parquet",), "grid": (".tif", ".zarr"), "colours": (".tif",)}


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Options of an embedding.

    Attributes:
        encoder: a run folder, or the name of a published encoder.
        reading: scenes, and how they are covered.
        product: vectors of `tiles`, a `grid` of features, or `colours` of tokens.
        pool: how the tokens of a tile become one vector; of `tiles` only, by default their mean.
        report: write that page; of `grid` and `colours`.
        accept: terms of a published encoder's licence that you agree to, such as non_commercial.
    """

    encoder: str = ""
    reading: Reading = Reading()
    product: Product = "tiles"
    pool: Pool | None = None
    report: bool = True
    accept: tuple[Literal["non_commercial"], ...] = ()

    def __post_init__(self) -> None:
        if self.pool is not None and self.product != "tiles":
            raise ConfigError(f"option 'pool' has no effect on the product '{self.product}': leave it out.")
        if not self.report and self.product == "tiles":
            raise ConfigError(
                "option 'report' has no effect on the product 'tiles', which has no pictures: leave it out."
            )
        if self.reading.measured != "all":
            raise ConfigError("option 'measured': expected all, for features do not say which bands they are of.")


def jobs(config: Embed, encoder: Encoder) -> list[Job]:
    """Open every scene and look whether the encoder can read it.

    Raises:
        HalfseenError: a scene or an option cannot be used; nothing was written.
    """
    made = []
    for found, entry in matched(open_scenes(config.reading), encoder.contract):
        cell = None
        if config.product != "tiles":
            backbone = encoder.backbone
            window = covered(replace(config.reading, overlap=None), found.image, entry, 1).window
            tokens = backbone.level_grid(backbone.num_levels, entry.grid(window)).tokens
            cell = tuple(w // t for w, t in zip(window, tokens, strict=True))
        windows = covered(config.reading, found.image, entry, cell)
        look(found.image, entry)
        made.append(Job(found=found, entry=entry, windows=windows))
    return made


def run(config: Embed, options: Options) -> Path:
    """Describe every scene; of several, one without anything measured is told and left out.

    Raises:
        DataError: a scene is damaged, or nothing is measured in any.
    """
    check_ending(config, options)
    encoder = load(config, config.reading.where())
    work = jobs(config, encoder)
    network = _network(encoder, config)
    if config.product == "tiles":
        say("\n".join(_text(config, job, network) for job in work))
        return write_tiles(config.reading, config.encoder, encoder, work, options.out, overwrite=options.overwrite)
    write = write_grid if config.product == "grid" else write_colours
    paths = targets([job.image for job in work], options.out, ".tif")
    page, old = [page_of(paths)] if config.report else [], outdated(paths)
    refuse_existing([*paths, *page, *old], options)
    sheets: list[Sheet] = []
    unmeasured: list[UnmeasuredError] = []
    for job, path in zip(work, paths, strict=True):
        say(_text(config, job, network))
        began = time.perf_counter()
        try:
            write(config.reading, encoder, job, path, overwrite=options.overwrite)
        except UnmeasuredError as error:
            unmeasured.append(error)
            leave_out(unmeasured, len(work))
            continue
        seconds, pictured = time.perf_counter() - began, len(sheets) < PICTURED
        if config.report:
            sheets.append(sheet_of_tokens(job.image, job.entry, job.windows, path, seconds=seconds, pictured=pictured))
    if config.report:
        say(f"report: {_page(config, encoder, work, sheets, paths)}")
    remove(set(old) - set(page))
    return paths[0] if len(paths) == 1 else options.out


def _page(config: Embed, encoder: Encoder, work: list[Job], sheets: list[Sheet], paths: list[Path]) -> Path:
    about = {"encoder": config.encoder, "features": encoder.backbone.num_features, "product": config.product}
    return write_page(
        paths,
        sheets,
        title=f"{work[0].image.path.stem if len(work) == 1 else f'{len(work)} scenes'}, seen by {Path(config.encoder).name}",
        what="tokens",
        about=about | {"adapted": encoder.report.adapted},
        reading=config.reading,
        entry=work[0].entry,
        windows=work[0].windows,
    )


def check_ending(config: Embed, options: Options) -> None:
    """Make sure, before any work, that all is named, and that the name fits the product; a folder's has no ending.

    Raises:
        ConfigError: it does not, or encoder or scenes are not named.
        RunFolderError: it is taken.
    """
    check_named(config)
    endings, out = _ENDINGS[config.product], options.out
    if out.suffix not in endings and (out.suffix or config.product == "tiles"):
        raise ConfigError(
            f"--out {out}: expected a name that ends in {' or '.join(endings)} for --product={config.product}."
        )
    if out.suffix:
        refuse_existing([out], options)


def check_named(config: Embed) -> None:
    """Make sure that there is something to embed, and with what.

    Raises:
        ConfigError: there is not.
    """
    if not config.encoder:
        raise ConfigError(
            "expected --encoder, a run folder of `python -m domains.satellite.pretrain` or the name of a published encoder "
            "(python -m core.zoo list)."
        )
    if not config.reading.data:
        raise ConfigError("expected --data, the scenes to read: files, folders, lists or manifests.")


def load(config: Embed, device: torch.device | str) -> Encoder:
    """Load the encoder."""
    return load_encoder(config.encoder, pool=config.pool, accept=config.accept, device=device)


def plan(config: Embed) -> str:
    """Say how much there is to do and what it will hold, scene by scene."""
    check_named(config)
    encoder = load(config, config.reading.where())
    network = _network(encoder, config)
    return "\n".join(_text(config, job, network) for job in jobs(config, encoder))


def default_out(config: Embed) -> Path:
    """Beside the encoder where it is a run, else here."""
    folder = Path(config.encoder) if Path(config.encoder).is_dir() else Path()
    return folder / ("tiles.parquet" if config.product == "tiles" else config.product)


def _network(encoder: Encoder, config: Embed) -> Network:
    if config.product == "tiles":
        return Network(module=encoder, ask=encoder, values=encoder.num_features)
    values = encoder.backbone.num_features if config.product == "grid" else 3
    return Network(module=encoder, ask=encoder.feature_map, values=values)


def _text(config: Embed, job: Job, network: Network) -> str:
    return memory_text(job.windows, job.entry, job.image, config.reading, network)


if __name__ == "__main__":
    main(
        Verb(
            config=Embed,
            run=run,
            description=__doc__ or "",
            default_out=default_out,
            aliases=ALIASES,
            plan=plan,
            check=check_ending,
        )
    )
