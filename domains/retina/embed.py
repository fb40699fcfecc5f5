"""Write one vector per image as Parquet: file, group, vector.

python -m domains.retina.embed --encoder runs/mine --data photographs/ --out vectors.parquet
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

import core
from core.checkpoint import publish
from core.cli import Options, Verb, main
from core.encoders.base import Pool
from core.errors import RunFolderError
from domains.retina.collection import collect, one_kind, say
from domains.retina.features import describe, input_of, open_encoder


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Options of an embedding.

    Attributes:
        encoder: a run folder, or its encoder folder.
        data: folders, lists or manifests; none = the synthetic sample set.
        group: the column that names patients; none = the list's own `group` column, else every image for itself.
        kind: photograph or volume, where the data has both.
        pool: how tokens become one vector; their mean and spread, since lesions are small and few.
        size: voxels of the image that the encoder sees, one number or one per axis; none = the size it was trained on.
        workers: loader processes.
        device: auto, cpu, cuda.
    """

    encoder: str
    data: tuple[str, ...] = ()
    group: str | None = None
    kind: Literal["photograph", "volume"] | None = None
    pool: Pool = "mean_std"
    size: tuple[int, ...] | None = None
    workers: int = 0
    device: str = "auto"


def check(config: Embed, options: Options) -> None:
    """Refuse before any work.

    Raises:
        RunFolderError: the file is there already.
    """
    if options.out.exists() and not options.overwrite:
        raise RunFolderError(f"{options.out} exists: replace it with --overwrite, or name another file with --out.")


def run(config: Embed, options: Options) -> Path:
    """Embed and save."""
    encoder = open_encoder(config.encoder, pool=config.pool, device=config.device)
    manifest, what = collect(config.data, group=config.group)
    manifest = one_kind(manifest, config.kind)
    entry = input_of(encoder, manifest, config.size)
    say(what)
    device = next(encoder.parameters()).device
    vectors = describe({"vector": encoder}, manifest, entry, workers=config.workers, device=device)["vector"]
    width = vectors.shape[1]
    table = pa.table(
        {
            "file": [str(path) for path in manifest.paths],
            "group": manifest.column("group"),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        }
    )
    about = {"encoder": config.encoder, "pool": config.pool, "size": list(entry.size), "halfseen": core.__version__}
    table = table.replace_schema_metadata({"halfseen": json.dumps(about)})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    publish(options.out, lambda path: pq.write_table(table, path))
    return options.out


if __name__ == "__main__":
    main(
        Verb(
            config=Embed,
            run=run,
            description=__doc__ or "",
            default_out=lambda config: Path(config.encoder) / "vectors.parquet",
            check=check,
        )
    )
