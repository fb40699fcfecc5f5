"""Score frozen features on labels, beside random weights and pixel statistics: what every domain's `evaluate` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from core.batch import Batch
from core.checkpoint import publish_text
from core.cli import Options, Verb
from core.errors import ConfigError
from core.evaluate.baselines import ENCODER, PIXEL_STATISTICS, RANDOM_WEIGHTS, pixel_statistics
from core.evaluate.inputs import Features
from core.evaluate.knn import NearestNeighbours
from core.evaluate.label_efficiency import choose_lessons, label_efficiency
from core.evaluate.probe import LinearProbe
from core.evaluate.protocol import deal, evaluate
from core.report import write_report
from domains.verbs.domain import Domain
from domains.verbs.features import (
    ALIASES,
    Images,
    beside,
    copies_in_other_groups,
    describe,
    label_name,
    open_images,
    random_weights,
    refuse_existing,
    seen_in_pretraining,
)
from domains.verbs.progress import Scoring

CURVE_K = 5
"""Neighbours that vote in k-NN of a label-efficiency curve; fewer where fewer images are labelled."""
PROBE = LinearProbe(settings=(1e-3, 1e-2, 1e-1, 1.0))
"""The probe of a curve, which is fitted often: a few strengths of its penalty."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Options of an evaluation.

    Attributes:
        images: encoder, images and labels.
        ordinal: whether the classes are grades; auto = by the column's name.
        k: neighbours that vote in k-NN.
        folds: of the cross-validation.
        draws: bootstrap resamples of the groups.
        random_seeds: how many encoders with random weights stand beside the trained one.
        shots: labelled images per class of a label-efficiency curve, such as 5,10,50,100; none = no curve.
        repeats: choices of the labelled images that the curve averages over.
        seed: of folds, choices and resamples.
    """

    images: Images
    ordinal: Literal["auto", "yes", "no"] = "auto"
    k: int = 20
    folds: int = 5
    draws: int = 2000
    random_seeds: int = 3
    shots: tuple[int, ...] = ()
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.random_seeds < 1 or self.folds < 2 or self.draws < 100 or self.k < 1:
            raise ConfigError(
                f"expected random_seeds >= 1, folds >= 2, draws >= 100 and k >= 1, got {self.random_seeds}, "
                f"{self.folds}, {self.draws} and {self.k}."
            )
        if self.repeats < 1 or any(count < 2 for count in self.shots):
            raise ConfigError(
                f"expected repeats >= 1 and at least 2 labels per class in every shot, got {self.repeats} and {self.shots}."
            )


def run(domain: Domain, config: Evaluate, options: Options) -> Path:
    """Embed, score, print and save."""
    images, label = config.images, label_name(domain, config.images)
    encoder, manifest, entry = open_images(domain, images, labelled=True)
    labels, groups = manifest.labels(label), manifest.column("group")
    ordinal = config.ordinal == "yes" or (config.ordinal == "auto" and label in domain.ordinal_labels)
    dealing: dict[str, Any] = {"seed": config.seed, "ordinal": ordinal, "folds": config.folds, "draws": config.draws}
    methods = (NearestNeighbours(settings=(config.k,)), LinearProbe())
    deal(labels, groups, methods=methods, **dealing)  # before the images are embedded, which may take hours
    if config.shots:
        few_k = min(CURVE_K, min(config.shots) * len(set(labels)))
        dealing_few: dict[str, Any] = {"shots": config.shots, "repeats": config.repeats} | dealing
        few_methods = (NearestNeighbours(settings=(few_k,)), PROBE)
        choose_lessons(labels, groups, methods=few_methods, **dealing_few)

    rivals = {f"{RANDOM_WEIGHTS} {seed}": random_weights(encoder, seed) for seed in range(config.random_seeds)}
    functions: dict[str, Callable[[Batch], Tensor]] = {ENCODER: encoder, **rivals, PIXEL_STATISTICS: pixel_statistics}
    device = next(encoder.parameters()).device
    vectors = describe(
        functions, manifest, entry, workers=images.workers, worker_kind=images.worker_kind, device=device
    )
    seen = seen_in_pretraining(images.encoder, manifest)
    notes = [f"{seen} of these {len(manifest)} images were seen in pretraining, without labels."] if seen else []
    notes += copies_in_other_groups(manifest.column("digest"), manifest.column("group"))
    if not images.data:
        notes.insert(0, domain.samples.warning)
    sets: dict[str, Features | list[Features]] = {
        ENCODER: vectors[ENCODER],
        RANDOM_WEIGHTS: [vectors[name] for name in rivals],
        PIXEL_STATISTICS: vectors[PIXEL_STATISTICS],
    }
    with Scoring("table") as progress:
        table = evaluate(sets, labels, groups, methods=methods, notes=notes, progress=progress, **dealing)
    table.print()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    publish_text(options.out, table.to_json())
    publish_text(options.out.with_suffix(".md"), table.to_markdown())
    if config.shots:
        with Scoring("curve") as progress:
            curve = label_efficiency(
                sets, labels, groups, methods=few_methods, notes=notes, progress=progress, **dealing_few
            )
        curve.print()
        file = curve_file(options.out)
        publish_text(file, curve.to_json())
        publish_text(file.with_suffix(".md"), curve.to_markdown())
    if (Path(images.encoder) / "config.yaml").exists():
        write_report(Path(images.encoder))
    return options.out


def curve_file(out: Path) -> Path:
    """Where the label-efficiency curve of an evaluation lies: beside it, `label_efficiency_grade.json`."""
    return out.with_name(f"label_efficiency_{out.name.removeprefix('evaluation_')}")


def check(config: Evaluate, options: Options) -> None:
    """Refuse to replace an evaluation, or its curve, unasked.

    Raises:
        RunFolderError: one of the files is there already.
    """
    refuse_existing(options)
    if config.shots:
        refuse_existing(replace(options, out=curve_file(options.out)))


def verb(domain: Domain, description: str) -> Verb[Evaluate]:
    """Give the command of a domain."""

    def default_out(config: Evaluate) -> Path:
        return beside(domain, config.images, f"evaluation_{label_name(domain, config.images)}.json")

    return Verb(
        config=Evaluate,
        run=lambda config, options: run(domain, config, options),
        description=description,
        default_out=default_out,
        aliases=ALIASES,
        check=check,
    )
