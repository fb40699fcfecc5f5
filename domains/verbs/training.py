"""What every fine-tuning does, whatever its labels are: what is refused, the training's log, scores, the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from core.batch import Batch
from core.checkpoint import export_encoder, publish_folder
from core.cli import Options
from core.config import dump, to_dict
from core.encoders.load import Encoder
from core.engine.run_folder import check as check_folder
from core.errors import ConfigError, DataError
from core.evaluate.table import Row, interval_notes, with_interval
from core.finetune import OTHER_SPLIT, Example, Finetune, Targets, finetune
from core.heads.base import HeadSpec
from core.heads.load import DESCRIPTION, Model, Task, write_head
from core.rng import key
from datasets import Manifest
from domains.verbs.collection import say
from domains.verbs.domain import Domain
from domains.verbs.features import Images
from domains.verbs.parts import meanings


@dataclass(frozen=True)
class Learnt:
    """What a head learns of a collection.

    Attributes:
        targets: labels, groups and split.
        head: from features to the answer.
        task: what the answer means.
    """

    targets: Targets
    head: HeadSpec
    task: Task


def linear_training() -> Finetune:
    """Train a head on a frozen encoder."""
    return Finetune(
        mode="linear", steps=300, lr=1e-2, warmup_steps=20, validate_every=50, weight_decay=0.0, balanced=True
    )


def full_training() -> Finetune:
    """Train head and encoder with layer-wise decaying rates (MAE, arXiv 2111.06377, table 9: decay 0.75, smoothing 0.1)."""
    return Finetune(
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


def check_scoring(validation: float, test: float, draws: int, split: Sequence[str]) -> None:
    """Refuse shares that leave nothing to train on, to choose by or to score, too few resamples, and parts that are none.

    Raises:
        ConfigError: so they are.
    """
    if validation <= 0 or test <= 0 or validation + test >= 1:
        raise ConfigError(
            f"expected shares of validation and test above 0 that leave some to train on, got {validation} and {test}."
        )
    if draws < 100:
        raise ConfigError(f"expected draws >= 100 for a 95 % interval, got {draws}.")
    meanings(split)


def check(domain: Domain, images: Images, options: Options) -> None:
    """Refuse before any work.

    Raises:
        ConfigError: no encoder is named.
        RunFolderError: the folder exists or cannot be written.
    """
    if not images.encoder:
        raise ConfigError(f"expected --encoder, a run folder of `python -m domains.{domain.name}.pretrain`.")
    if options.overwrite and (options.out / DESCRIPTION).is_file():
        return  # a fine-tuning of before, which is replaced as a whole when the new one is done
    check_folder(options.out, None, overwrite=options.overwrite, resumable=False)


def check_tested(groups: set[str], what: str) -> None:
    """Refuse what could be trained, but not scored with an interval.

    Args:
        groups: of the test split.
        what: is tested, such as `groups of images`.

    Raises:
        DataError: fewer than two groups.
    """
    if len(groups) < 2:
        raise DataError(f"expected at least 2 {what} in the split 'test', got {len(groups)}: {OTHER_SPLIT}.")


def join(encoder: Encoder, learnt: Learnt, *, seed: int, ndim: int, about: Mapping[str, Any], **legend: Any) -> Model:
    """Put a fresh head, a pure function of the seed, on an encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "head"))
        return Model(
            encoder, learnt.head, task=learnt.task, classes=learnt.targets.names, ndim=ndim, about=about, **legend
        )


def fit(
    model: Model,
    targets: Targets,
    training: Finetune,
    train: Callable[[int, int], Iterable[Batch | Example]],
    validation: Callable[[], Iterable[Batch | Example]],
) -> list[Mapping[str, Any]]:
    """Train a model in place, tell of each check, and give the log."""
    events: list[Mapping[str, Any]] = []

    def log(event: Mapping[str, Any]) -> None:
        events.append(event)
        if event["event"] == "validation":
            scores = ", ".join(f"{name} {value:.3f}" for name, value in event["scores"].items())
            say(f"step {event['step']}: validation {scores}")

    finetune(model.features, model.head, config=training, labelled=targets, train=train, validation=validation, log=log)
    return events


def print_scores(scores: Sequence[Row]) -> None:
    """Print one line per score, then what limits their intervals."""
    for row in scores:
        print(f"{row.features}, {row.method}: {row.metric} {with_interval(row.value, row.low, row.high)}")
    for sentence in interval_notes(scores):
        print(sentence)


def save(
    out: Path,
    model: Model,
    config: object,
    events: Sequence[Mapping[str, Any]],
    scores: Sequence[Row],
    predictions: pa.Table,
    manifest: Manifest,
) -> None:
    """Publish the run folder as a whole: config, log, scores, head, encoder, predictions, manifest."""
    about = {"finetuned_from": model.about["finetuned_from"]}

    def write(folder: Path) -> None:
        (folder / "config.yaml").write_text(dump(to_dict(config)), encoding="utf-8")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
        (folder / "scores.json").write_text(json.dumps([asdict(row) for row in scores], indent=2), encoding="utf-8")
        write_head(folder, model)
        export_encoder(model.encoder.backbone, folder / "encoder", about=about)
        pq.write_table(predictions, folder / "predictions.parquet")
        manifest.write(folder / "data.parquet")

    out.parent.mkdir(parents=True, exist_ok=True)
    publish_folder(out, write)
