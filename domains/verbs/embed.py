"""Write one vector per image as Parquet, with its file and group: what every domain's `embed` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import core
from core.checkpoint import publish
from core.cli import Options, Verb
from core.errors import ConfigError
from domains.verbs.domain import Domain
from domains.verbs.features import ALIASES, Images, describe, open_images, refuse_existing


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Options of an embedding.

    Attributes:
        images: encoder and images.
    """

    images: Images

    def __post_init__(self) -> None:
        if self.images.label is not None:
            raise ConfigError("--label has no effect on an embedding: leave it out.")


def run(domain: Domain, config: Embed, options: Options) -> Path:
    """Embed and save."""
    images = config.images
    encoder, manifest, entry = open_images(domain, images, labelled=False)
    device = next(encoder.parameters()).device
    vectors = describe(
        {"vector": encoder}, manifest, entry, workers=images.workers, worker_kind=images.worker_kind, device=device
    )["vector"]
    width = vectors.shape[1]
    table = pa.table(
        {
            "file": [str(path) for path in manifest.paths],
            "group": manifest.column("group"),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width),
        }
    )
    about = {"encoder": images.encoder, "pool": images.pool, "size": list(entry.whole), "halfseen": core.__version__}
    table = table.replace_schema_metadata({"halfseen": json.dumps(about)})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    publish(options.out, lambda path: pq.write_table(table, path))
    return options.out


def verb(domain: Domain, description: str) -> Verb[Embed]:
    """Give the command of a domain."""
    return Verb(
        config=Embed,
        run=lambda config, options: run(domain, config, options),
        description=description,
        default_out=lambda config: Path(config.images.encoder) / "vectors.parquet",
        aliases=ALIASES,
        check=lambda _, options: refuse_existing(options),
    )
