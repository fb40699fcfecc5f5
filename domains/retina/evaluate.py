"""Measure what a pretrained encoder's frozen features are worth on labels, beside random weights and pixel statistics.

    python -m domains.retina.evaluate --encoder runs/mine --data labels.csv --label retinopathy_grade

Prints a table (k-NN and linear probe; balanced accuracy, AUROC, quadratic kappa for grades; 95 % intervals by group) and
saves it as evaluation_<label>.json and .md in the run folder, whose report.html then shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.checkpoint import publish_text
from core.cli import Options, Verb, main
from core.errors import ConfigError
from core.evaluate.baselines import ENCODER, PIXEL_STATISTICS, RANDOM_WEIGHTS, pixel_statistics
from core.evaluate.knn import NearestNeighbours
from core.evaluate.probe import LinearProbe
from core.evaluate.protocol import evaluate
from core.report import write_report
from domains.retina import domain
from domains.retina.collection import say
from domains.retina.features import (
    ALIASES,
    Images,
    describe,
    open_images,
    random_weights,
    refuse_existing,
    seen_in_pretraining,
)


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
        seed: of folds and resamples.
    """

    images: Images
    ordinal: Literal["auto", "yes", "no"] = "auto"
    k: int = 20
    folds: int = 5
    draws: int = 2000
    random_seeds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.random_seeds < 1 or self.folds < 2 or self.draws < 100 or self.k < 1:
            raise ConfigError(
                f"expected random_seeds >= 1, folds >= 2, draws >= 100 and k >= 1, got {self.random_seeds}, "
                f"{self.folds}, {self.draws} and {self.k}."
            )


def run(config: Evaluate, options: Options) -> Path:
    """Embed, score, print and save."""
    images, label = config.images, config.images.label_name
    encoder, manifest, entry = open_images(images, labelled=True)

    rivals = {f"{RANDOM_WEIGHTS} {seed}": random_weights(encoder, seed) for seed in range(config.random_seeds)}
    functions = {ENCODER: encoder, **rivals, PIXEL_STATISTICS: pixel_statistics}
    device = next(encoder.parameters()).device
    vectors = describe(
        functions, manifest, entry, workers=images.workers, worker_kind=images.worker_kind, device=device
    )
    seen = seen_in_pretraining(images.encoder, manifest)
    notes = [f"{seen} of these {len(manifest)} images were seen in pretraining, without labels."] if seen else []
    if not images.data:
        notes.insert(0, "Synthetic images: these scores say that the software works, nothing about eyes.")
    table = evaluate(
        {
            ENCODER: vectors[ENCODER],
            RANDOM_WEIGHTS: [vectors[name] for name in rivals],
            PIXEL_STATISTICS: vectors[PIXEL_STATISTICS],
        },
        manifest.labels(label),
        manifest.column("group"),
        seed=config.seed,
        ordinal=config.ordinal == "yes" or (config.ordinal == "auto" and label in domain.ORDINAL_LABELS),
        folds=config.folds,
        draws=config.draws,
        methods=(NearestNeighbours(settings=(config.k,)), LinearProbe()),
        notes=notes,
        progress=lambda text: say(f"scoring {text}"),
    )
    table.print()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    publish_text(options.out, table.to_json())
    publish_text(options.out.with_suffix(".md"), table.to_markdown())
    if (Path(images.encoder) / "config.yaml").exists():
        write_report(Path(images.encoder))
    return options.out


if __name__ == "__main__":
    main(
        Verb(
            config=Evaluate,
            run=run,
            description=__doc__ or "",
            default_out=lambda config: Path(config.images.encoder) / f"evaluation_{config.images.label_name}.json",
            aliases=ALIASES,
            check=lambda _, options: refuse_existing(options),
        )
    )
