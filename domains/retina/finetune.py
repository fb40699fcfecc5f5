"""Train a classifier of retina images on top of a pretrained encoder: a linear head, or everything.

    python -m domains.retina.finetune full --encoder runs/mine --data labels.csv --label retinopathy_grade --out runs/grades

Splits by group into train, validation and test; keeps the best check on validation; scores the test images once, with
95 % intervals. Writes config.yaml, metrics.jsonl, encoder/, head.safetensors, predictions.parquet and scores.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from core.batch import Batch
from core.checkpoint import export_encoder, publish_folder
from core.cli import Options, Verb, main
from core.config import dump, to_dict
from core.encoders.load import Encoder
from core.engine.run_folder import check as check_folder
from core.errors import ConfigError, DataError
from core.evaluate.held_out import held_out_scores
from core.evaluate.inputs import encode_labels
from core.evaluate.table import Row
from core.finetune import Finetune, Labelled, Predictions, Split, finetune, predict
from core.heads.classify import Classify, LinearHead
from core.rng import key
from datasets import Manifest, StreamSpec, TileLoader, whole_batches
from domains.retina import domain
from domains.retina.collection import say
from domains.retina.features import ALIASES, BATCH, Images, open_images


@dataclass(frozen=True, kw_only=True)
class FinetuneRetina:
    """Options of a fine-tuning.

    Attributes:
        images: encoder, images and labels.
        ordinal: whether the classes are grades; auto = by the column's name.
        validation: share of the groups that choose the best check.
        test: share of the groups that are scored once, at the end.
        batch_size: images per step.
        scale: share of a photograph's area that a training crop covers, smallest and largest.
        training: how to train.
        draws: bootstrap resamples of the test groups.
    """

    images: Images
    ordinal: Literal["auto", "yes", "no"] = "auto"
    validation: float = 0.2
    test: float = 0.2
    batch_size: int = 16
    scale: tuple[float, float] = (0.5, 1.0)
    training: Finetune
    draws: int = 2000

    def __post_init__(self) -> None:
        if self.validation <= 0 or self.test <= 0 or self.validation + self.test >= 1:
            raise ConfigError(
                f"expected shares of validation and test above 0 that leave some to train on, got {self.validation} "
                f"and {self.test}."
            )


def linear() -> FinetuneRetina:
    """Train a linear head on the frozen encoder: a minute on a CPU, the label-efficient choice below 1,000 images."""
    training = Finetune(
        mode="linear", steps=300, lr=1e-2, warmup_steps=20, validate_every=50, weight_decay=0.0, balanced=True
    )
    return FinetuneRetina(images=Images(encoder=""), training=training)


def full() -> FinetuneRetina:
    """Train head and encoder with layer-wise decaying rates (MAE, arXiv 2111.06377, table 9: decay 0.75, smoothing 0.1)."""
    training = Finetune(
        mode="full",
        steps=400,
        lr=1e-3,
        warmup_steps=40,
        validate_every=50,
        layer_decay=0.75,
        label_smoothing=0.1,
        balanced=True,
        clip_norm=1.0,
    )
    return FinetuneRetina(images=Images(encoder=""), training=training)


def check(config: FinetuneRetina, options: Options) -> None:
    """Refuse before any work.

    Raises:
        ConfigError: no encoder is named.
        RunFolderError: the folder exists or cannot be written.
    """
    if not config.images.encoder:
        raise ConfigError("expected --encoder, a run folder of `python -m domains.retina.pretrain`.")
    check_folder(options.out, None, overwrite=options.overwrite)


def run(config: FinetuneRetina, options: Options) -> Path:
    """Train, test and save."""
    images, label = config.images, config.images.label_name
    encoder, manifest, entry = open_images(images, labelled=True)
    device = next(encoder.parameters()).device
    manifest = manifest.with_column("split", split(manifest.column("group"), config))
    ordinal = config.ordinal == "yes" or (config.ordinal == "auto" and label in domain.ORDINAL_LABELS)
    labels = encode_labels(manifest.labels(label), ordinal=ordinal)
    labelled = Labelled(
        codes=torch.from_numpy(labels.codes),
        names=labels.names,
        groups=tuple(manifest.column("group")),
        split=tuple(manifest.column("split")),
    )
    flips = domain.PHOTOGRAPH_FLIPS if entry.ndim == 2 else domain.VOLUME_FLIPS
    entry = replace(entry, size=entry.whole)  # crops are as large as what is scored
    stream = StreamSpec(input=entry, batch_size=config.batch_size, scale=config.scale, flips=flips)
    loader = TileLoader(
        manifest, [stream], seed=config.training.seed, workers=images.workers, worker_kind=images.worker_kind
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.training.seed, "head"))
        spec = Classify(num_classes=len(labels.names), batch_norm=config.training.mode == "linear")
        head = spec.build(encoder.num_features).to(device)

    events: list[Mapping[str, Any]] = []

    def log(event: Mapping[str, Any]) -> None:
        events.append(event)
        if event["event"] == "validation":
            scores = ", ".join(f"{name} {value:.3f}" for name, value in event["scores"].items())
            say(f"step {event['step']}: validation {scores}")

    finetune(
        encoder,
        head,
        config=config.training,
        labelled=labelled,
        train=loader.batches,
        validation=lambda: _whole(manifest, labelled, "validation", stream),
        log=log,
    )
    found = predict(encoder, head, _whole(manifest, labelled, "test", stream))
    scores = held_out_scores(
        labels.codes[found.rows],
        found.probabilities,
        [labelled.groups[row] for row in found.rows],
        features="test images",
        method=config.training.mode,
        ordinal=ordinal,
        draws=config.draws,
        seed=config.training.seed,
    )
    for row in scores:
        print(f"{row.features}, {row.method}: {row.metric} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}]")
    _save(options.out, config, encoder, head, manifest, labels.names, found, scores, events)
    return options.out


def split(groups: list[str], config: FinetuneRetina) -> list[Split]:
    """Deal groups to train, validation and test, a pure function of each group's name and the seed."""
    names: dict[str, Split] = {}
    for group in set(groups):
        draw = (key(config.training.seed, "finetune split", group) + (1 << 63)) / (1 << 64)
        names[group] = (
            "test" if draw < config.test else "validation" if draw < config.test + config.validation else "train"
        )
    return [names[group] for group in groups]


def _whole(manifest: Manifest, labelled: Labelled, part: Split, stream: StreamSpec) -> Iterator[Batch]:
    """Give the whole images of one split, with the manifest's own row numbers."""
    rows = labelled.rows(part)
    if not len(rows):
        raise DataError(f"expected images in the split '{part}', got none: use more groups or a larger share.")
    for batch in whole_batches(manifest.take(rows.numpy()), stream.input, BATCH):
        yield replace(batch, row=rows[batch.row])


def _save(
    out: Path,
    config: FinetuneRetina,
    encoder: Encoder,
    head: LinearHead,
    manifest: Manifest,
    names: tuple[str, ...],
    found: Predictions,
    scores: list[Row],
    events: list[Mapping[str, Any]],
) -> None:
    files = [str(manifest.path(int(row))) for row in found.rows]
    table = pa.table({"file": files, **{f"p_{name}": found.probabilities[:, k] for k, name in enumerate(names)}})

    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(dump(to_dict(config)), encoding="utf-8")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        (folder / "scores.json").write_text(json.dumps([asdict(row) for row in scores], indent=2), encoding="utf-8")
        weights = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
        save_file(weights, folder / "head.safetensors", metadata={"classes": json.dumps(names)})
        pq.write_table(table, folder / "predictions.parquet")
        manifest.write(folder / "data.parquet")

    out.parent.mkdir(parents=True, exist_ok=True)
    publish_folder(out, write)
    export_encoder(encoder.backbone, out / "encoder", about={"finetuned_from": config.images.encoder})


PRESETS = {"linear": linear, "full": full}

if __name__ == "__main__":
    main(
        Verb(
            config=FinetuneRetina,
            run=run,
            description=__doc__ or "",
            presets=PRESETS,
            default_preset="linear",
            aliases=ALIASES,
            check=check,
        )
    )
