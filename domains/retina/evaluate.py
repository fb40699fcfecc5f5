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
from core.encoders.base import Pool
from core.errors import ConfigError, MissingDataError, RunFolderError
from core.evaluate.baselines import ENCODER, PIXEL_STATISTICS, RANDOM_WEIGHTS, pixel_statistics
from core.evaluate.knn import NearestNeighbours
from core.evaluate.probe import LinearProbe
from core.evaluate.protocol import evaluate
from core.report import write_report
from domains.retina import domain
from domains.retina.collection import collect, one_kind, say
from domains.retina.features import describe, input_of, open_encoder, random_weights, seen_in_pretraining


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Options of an evaluation.

    Attributes:
        encoder: a run folder, or its encoder folder.
        data: folders, lists or manifests with labels; none = the synthetic sample set.
        label: the column to predict; with the sample set `grade`.
        group: the column that names patients; none = the list's own `group` column, else every image for itself.
        kind: photograph or volume, where the data has both.
        pool: how tokens become one vector; their mean and spread, since lesions are small and few.
        size: voxels of the image that the encoder sees, one number or one per axis; none = the size it was trained on.
        ordinal: whether the classes are grades; auto = by the column's name.
        k: neighbours that vote in k-NN.
        folds: of the cross-validation.
        draws: bootstrap resamples of the groups.
        random_seeds: how many encoders with random weights stand beside the trained one.
        seed: of folds and resamples.
        workers: loader processes.
        device: auto, cpu, cuda.
    """

    encoder: str
    data: tuple[str, ...] = ()
    label: str | None = None
    group: str | None = None
    kind: Literal["photograph", "volume"] | None = None
    pool: Pool = "mean_std"
    size: tuple[int, ...] | None = None
    ordinal: Literal["auto", "yes", "no"] = "auto"
    k: int = 20
    folds: int = 5
    draws: int = 2000
    random_seeds: int = 3
    seed: int = 0
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.data and self.label is None:
            raise ConfigError("expected --label, the name of the column to predict.")
        if not self.data and (self.label or "grade") != "grade":
            raise ConfigError(f"the synthetic sample set has the label 'grade' only, got '{self.label}'; give --data.")
        if self.random_seeds < 1 or self.folds < 2 or self.draws < 100:
            raise ConfigError(
                f"expected random_seeds >= 1, folds >= 2 and draws >= 100, got {self.random_seeds}, {self.folds} "
                f"and {self.draws}."
            )


def _target(config: Evaluate) -> Path:
    return Path(config.encoder) / f"evaluation_{config.label or 'grade'}.json"


def check(config: Evaluate, options: Options) -> None:
    """Refuse before any work.

    Raises:
        RunFolderError: the result is there already.
    """
    if not Path(config.encoder).is_dir():
        raise MissingDataError(f"expected a run folder or an encoder folder, but {config.encoder} does not exist.")
    if options.out.exists() and not options.overwrite:
        raise RunFolderError(f"{options.out} exists: replace it with --overwrite, or name another file with --out.")


def run(config: Evaluate, options: Options) -> Path:
    """Embed, score, print and save."""
    label = config.label or "grade"
    encoder = open_encoder(config.encoder, pool=config.pool, device=config.device)
    manifest, what = collect(config.data, label=label, group=config.group)
    manifest = one_kind(manifest, config.kind)
    labels = manifest.labels(label)
    entry = input_of(encoder, manifest, config.size)
    say(what)

    rivals = {f"{RANDOM_WEIGHTS} {seed}": random_weights(encoder, seed) for seed in range(config.random_seeds)}
    functions = {ENCODER: encoder, **rivals, PIXEL_STATISTICS: pixel_statistics}
    device = next(encoder.parameters()).device
    vectors = describe(functions, manifest, entry, workers=config.workers, device=device)
    seen = seen_in_pretraining(config.encoder, manifest)
    notes = [f"{seen} of these {len(manifest)} images were seen in pretraining, without labels."] if seen else []
    if not config.data:
        notes.insert(0, "Synthetic images: these scores say that the software works, nothing about eyes.")
    table = evaluate(
        {
            ENCODER: vectors[ENCODER],
            RANDOM_WEIGHTS: [vectors[name] for name in rivals],
            PIXEL_STATISTICS: vectors[PIXEL_STATISTICS],
        },
        labels,
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
    if (Path(config.encoder) / "config.yaml").exists():
        write_report(Path(config.encoder))
    return options.out


if __name__ == "__main__":
    main(
        Verb(
            config=Evaluate,
            run=run,
            description=__doc__ or "",
            default_out=_target,
            check=check,
        )
    )
