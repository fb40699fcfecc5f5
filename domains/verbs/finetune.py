"""Train a head on labels of whole images, alone or with its encoder: what every domain's `finetune` does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from core.batch import Batch
from core.checkpoint import publish_text
from core.cli import Options, Verb
from core.contract import Input
from core.encoders.load import Encoder
from core.engine.environment import environment
from core.errors import ConfigError, DataError
from core.evaluate.held_out import held_out_scores
from core.evaluate.inputs import encode_labels
from core.evaluate.regression import regression_scores
from core.evaluate.segmentation import segmentation_scores
from core.evaluate.table import Row
from core.finetune import OTHER_SPLIT, Examined, Finetune, Labelled, Measured, Split, Targets, examine
from core.heads.classify import Classify
from core.heads.load import Colour, Model
from core.heads.regress import Regress
from core.preprocess import is_native
from core.report import write_report
from core.viz import Row as Pictured
from core.viz import save_rows
from datasets import Manifest, StreamSpec, TileLoader, whole_batches
from datasets.assign import facts
from domains.verbs.collection import say
from domains.verbs.domain import Domain
from domains.verbs.features import ALIASES, BATCH, Images, label_name, open_images
from domains.verbs.parts import Own, copies_between, dealt, own_split
from domains.verbs.training import Learnt, check, check_scoring, check_tested, fit, join, print_scores, save


@dataclass(frozen=True, kw_only=True)
class FinetuneImages:
    """Options of a fine-tuning.

    Attributes:
        images: encoder, images and labels.
        task: classify: the label is a class; regress: it is a number.
        ordinal: whether the classes are grades; auto = by the column's name.
        split: what words of the list's own column `split` mean besides train, val and test, such as `test_gt=test` or
            `extra=none`, which leaves them out. That column is used where there is one, and what it does not name is dealt
            out of its train; `dealt` leaves it aside.
        validation: share of the groups that choose the best check, where the list does not name them.
        test: share of the groups that are scored once, at the end, where the list does not name them.
        batch_size: images per step.
        scale: share of an image's area that a training crop covers, smallest and largest, where crops are resized.
        training: how to train.
        draws: bootstrap resamples of the test groups.
    """

    images: Images
    task: Literal["classify", "regress"] = "classify"
    ordinal: Literal["auto", "yes", "no"] = "auto"
    split: tuple[str, ...] = ()
    validation: float = 0.2
    test: float = 0.2
    batch_size: int = 16
    scale: tuple[float, float] = (0.5, 1.0)
    training: Finetune
    draws: int = 2000

    def __post_init__(self) -> None:
        check_scoring(self.validation, self.test, self.draws, self.split)
        if self.task == "regress" and self.ordinal != "auto":
            raise ConfigError(f"--ordinal={self.ordinal} has no effect on a regression: leave it out.")


OVERWRITES = "replace the run in --out, when the new one is done."
"""What `--overwrite` does to a run folder of this verb."""

Legend = Sequence[tuple[str, Colour]]
Draw = Callable[[Model, Examined, Iterator[Batch]], tuple[Sequence[Pictured], Legend]]
"""From a trained model, what it answered to the test images, and those, to pictures and the names of their colours."""


def run(domain: Domain, config: FinetuneImages, options: Options, *, record: object | None = None) -> Path:
    """Train, test and save; `record` is the config to write where it is another than this one."""
    label, linear = label_name(domain, config.images), config.training.mode == "linear"
    encoder, manifest, entry, own = open_split(domain, config)
    ordinal = config.ordinal == "yes" or (config.ordinal == "auto" and label in domain.ordinal_labels)
    learnt = (
        classes(manifest, label, ordinal=ordinal, batch_norm=linear)
        if config.task == "classify"
        else numbers(manifest, label, batch_norm=linear)
    )
    flips = domain.kind_of(entry.ndim).flips
    return learn(
        domain,
        config,
        options,
        encoder,
        manifest,
        entry,
        learnt,
        own=own,
        flips=flips,
        ordinal=ordinal,
        record=record or config,
    )


def open_split(domain: Domain, config: FinetuneImages) -> tuple[Encoder, Manifest, Input, Own]:
    """Open encoder and images, and say of each image to which part it belongs: as the list does, the others dealt by group."""
    encoder, manifest, entry = open_images(domain, config.images, labelled=True)
    manifest, own = use_own(manifest, config)
    split = dealt(manifest.column("group"), own, config.validation, config.test, config.training.seed)
    return encoder, manifest.with_column("split", split), entry, own


def use_own(manifest: Manifest, config: FinetuneImages) -> tuple[Manifest, Own]:
    """Read the list's own split, leave out what belongs to no part, call the others by their part, and say so.

    Raises:
        ConfigError: a share of what the list names itself, or words that do not occur.
        DataError: images whose part is not known.
    """
    manifest, own = own_split(manifest, config.split)
    for name in ("validation", "test"):
        if getattr(config, name) != getattr(FinetuneImages, name) and name in own.split:
            raise ConfigError(
                f"--{name}={getattr(config, name)} has no effect: the list's own column `split` says which images those are; "
                "leave it out, or leave that column aside with --split=dealt."
            )
    if own.said:
        say(own.said)
    return manifest.with_column("split", own.split or [None] * len(manifest)), own


def learn(
    domain: Domain,
    config: FinetuneImages,
    options: Options,
    encoder: Encoder,
    manifest: Manifest,
    entry: Input,
    learnt: Learnt,
    *,
    own: Own,
    flips: tuple[bool, ...],
    ordinal: bool,
    record: object,
    draw: Draw | None = None,
) -> Path:
    """Train on crops, test on whole images, save, and report; `draw` gives the pictures of the report.

    Raises:
        DataError: the test images are of fewer than two groups, which give no interval.
    """
    images, targets, seed = config.images, learnt.targets, config.training.seed
    check_tested({targets.groups[row] for row in targets.rows("test").tolist()}, "groups of images")
    entry = replace(entry, size=entry.whole)  # crops are as large as what is scored
    stream = StreamSpec(input=entry, batch_size=config.batch_size, scale=config.scale, flips=flips)
    known = set(targets.rows("train").tolist())
    trained = ["train" if row in known else "left out" for row in range(len(manifest))]
    only = manifest.with_column("split", trained)  # all rows keep their numbers
    loader = TileLoader(only, [stream], seed=seed, workers=images.workers, worker_kind=images.worker_kind)
    about: dict[str, Any] = {"finetuned_from": images.encoder, "label": images.label, "window": list(entry.whole)}
    about |= {"split": own.said} if own.said else {}
    copied = copies_between(manifest.column("digest"), targets.split)
    for sentence in copied:
        say(sentence)
    if not is_native(entry):
        about["scene"] = list(largest_resized(domain, manifest, targets, entry))
    model = join(encoder, learnt, seed=seed, ndim=entry.ndim, about=about)

    def whole(part: Split) -> Iterator[Batch]:
        return whole_images(manifest, targets, part, stream)

    events = fit(model, targets, config.training, loader.batches, lambda: whole("validation"))
    found = examine(model.features, model.head, whole("test"), targets, "test")
    scores = image_scores(
        targets,
        found,
        ordinal=ordinal,
        features=own.tested("test images"),
        method=config.training.mode,
        draws=config.draws,
        seed=seed,
    )
    print_scores(scores)
    save(options.out, model, record, events, scores, answers(manifest, targets, found), manifest)
    rows, legend = draw(model, found, whole("test")) if draw is not None else ((), ())
    tell(domain, options, images, rows, legend, warnings=copied)
    return options.out


def largest_resized(domain: Domain, manifest: Manifest, targets: Targets, entry: Input) -> tuple[int, ...]:
    """Give the largest lengths of the images of all parts, (Y X), and say that they are resized where they are."""
    parts: tuple[Split, ...] = ("train", "validation", "test")
    rows = torch.cat([targets.rows(part) for part in parts]).numpy()
    sizes = facts(manifest, "shape", rows)[:, 1:]
    least, largest = (" x ".join(map(str, ends.tolist())) for ends in (sizes.min(0), sizes.max(0)))
    seen = " x ".join(map(str, entry.whole))
    if (sizes != entry.whole).any():
        noun = domain.kind_of(entry.ndim).name
        of = largest if least == largest else f"{least} to {largest}"
        say(f"{noun}s of {of} pixels are learnt and scored as a whole, each resized to fit into {seen} (--size)")
    return tuple(sizes.max(0).tolist())


def tell(
    domain: Domain,
    options: Options,
    images: Images,
    rows: Sequence[Pictured] = (),
    legend: Legend = (),
    *,
    warnings: Sequence[str] = (),
) -> None:
    """Write the report of a run folder that was just saved, and what its pages are made of."""
    publish_text(options.out / "env.json", json.dumps(environment(), indent=2) + "\n")
    if rows:
        save_rows(options.out / "figures", rows, legend=legend)
    title = f"{domain.title}, fine-tuning" + (f" by preset {options.preset}" if options.preset else "")
    drawn = "Images and labels are drawn, to try things out: the scores say nothing of real ones."
    warned, command = [*([] if images.data else [drawn]), *warnings], ["python", *sys.orig_argv[1:]]
    say(f"report: {write_report(options.out, title=title, warnings=warned, command=command)}")


def image_scores(targets: Targets, found: Examined, *, ordinal: bool, **options: Any) -> list[Row]:
    """Score the answers to whole images with 95 % intervals over groups."""
    groups = [targets.groups[row] for row in found.rows]
    if isinstance(targets, Labelled):
        return held_out_scores(targets.codes[found.rows].numpy(), found.summary, groups, ordinal=ordinal, **options)
    if isinstance(targets, Measured):
        return regression_scores(targets.values[found.rows].numpy(), found.summary, groups, targets.names, **options)
    return segmentation_scores(found.summary, groups, ("clear", "cloud"), **options)


def answers(manifest: Manifest, targets: Targets, found: Examined) -> pa.Table:
    """Tabulate what was answered: probabilities, numbers, or how many places were right."""
    files = {"file": [str(manifest.path(int(row))) for row in found.rows]}
    if found.summary.ndim == 3:
        count = {"measured": found.summary.sum((1, 2)), "right": np.trace(found.summary, axis1=1, axis2=2)}
        return pa.table(files | count)
    prefix = "p_" if isinstance(targets, Labelled) else ""
    return pa.table(files | {f"{prefix}{name}": found.summary[:, k] for k, name in enumerate(targets.names)})


def classes(manifest: Manifest, label: str, *, ordinal: bool, batch_norm: bool) -> Learnt:
    """Learn the class that a column names."""
    labels = encode_labels(manifest.labels(label), ordinal=ordinal)
    targets = Labelled(
        codes=torch.from_numpy(labels.codes),
        names=labels.names,
        groups=tuple(manifest.column("group")),
        split=tuple(manifest.column("split")),
        ordinal=ordinal,
    )
    return Learnt(targets, Classify(num_classes=len(labels.names), batch_norm=batch_norm), "classify")


def numbers(manifest: Manifest, label: str, *, batch_norm: bool) -> Learnt:
    """Learn the number that a column gives.

    Raises:
        DataError: the column holds something else than finite numbers.
    """
    values = np.full((len(manifest), 1), np.nan)
    for row, given in enumerate(manifest.labels(label)):
        try:
            values[row] = float(given)
        except ValueError:
            pass
        if not np.isfinite(values[row]):
            raise DataError(
                f"{manifest.path(row)}: expected a finite number as '{label}', got '{given}': mend the list or leave that "
                "image out; labels that are classes are learnt with --task=classify."
            )
    targets = Measured(
        values=torch.from_numpy(values),
        names=(label,),
        groups=tuple(manifest.column("group")),
        split=tuple(manifest.column("split")),
    )
    return Learnt(targets, Regress(centre=targets.centre, spread=targets.spread, batch_norm=batch_norm), "regress")


def whole_images(manifest: Manifest, targets: Targets, part: Split, stream: StreamSpec) -> Iterator[Batch]:
    """Give the whole images of one split, with the manifest's own row numbers."""
    rows = targets.rows(part)
    if not len(rows):
        raise DataError(f"expected images in the split '{part}', got none: {OTHER_SPLIT}.")
    for batch in whole_batches(manifest.take(rows.numpy()), stream.input, BATCH):
        yield replace(batch, row=rows[batch.row])


def verb(
    domain: Domain, description: str, presets: Mapping[str, Callable[[], FinetuneImages]], default_preset: str
) -> Verb[FinetuneImages]:
    """Give the command of a domain."""
    return Verb(
        config=FinetuneImages,
        run=lambda config, options: run(domain, config, options),
        description=description,
        presets=presets,
        default_preset=default_preset,
        aliases=ALIASES,
        check=lambda config, options: check(domain, config.images, options),
        overwrites=OVERWRITES,
    )
