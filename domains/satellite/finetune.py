"""Train a model of scenes on top of a pretrained encoder: a class or a number per scene, a class per pixel, a cloud section.

    python -m domains.satellite.finetune linear --encoder runs/mine --data labels.csv --label class --out runs/classes
    python -m domains.satellite.finetune upernet --encoder runs/mine --data scene.tif --rasters cover.tif --out runs/cover

A class or a number is that of a whole scene; where pixels have no size in metres, the scene is resized to what the encoder sees
(--size). Classes per pixel come from label rasters of any grid, which are laid over the scenes by CRS and transform; nodata, and
numbers in --ignored, count in neither loss nor scores. A list's own column `split` (train, val, test) is kept. What it does not
name is dealt: classes per pixel by blocks of the ground (--block, in pixels), all else by group. Keeps the best check on
validation and scores the test part once, with 95 % intervals over groups or blocks. Writes config.yaml, metrics.jsonl, encoder/,
head.safetensors, head.json (what `predict` reads), predictions.parquet, scores.json and report.html.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from core.cli import Options, Verb, main
from core.errors import ConfigError
from core.finetune import Finetune
from core.heads.cloud_mask import CloudMask
from domains.satellite import sections, segmenting
from domains.satellite.collection import SATELLITE
from domains.satellite.segmenting import LabelMaps
from domains.verbs.features import ALIASES, Images
from domains.verbs.finetune import OVERWRITES, FinetuneImages
from domains.verbs.finetune import run as run_images
from domains.verbs.training import check, check_scoring, full_training, linear_training


@dataclass(frozen=True, kw_only=True)
class FinetuneScenes:
    """Options of a fine-tuning.

    Attributes:
        images: encoder, scenes and labels.
        task: classify: a class per scene; regress: a number per scene; segment: a class per pixel; cloud_mask: cloud or none
            on the vertical section that --label names a .npy file of, beside the scene (1 cloud, 0 none, else not measured).
        maps: labels of pixels, of the task segment.
        cloud_widths: features after each doubling of the map, of the task cloud_mask.
        ordinal: whether the classes of scenes are grades; auto = by the column's name.
        split: what words of the list's own column `split` mean besides train, val and test, such as `test_gt=test` or
            `extra=none`, which leaves them out. That column is used where there is one, and what it does not name is dealt
            out of its train; `dealt` leaves it aside.
        validation: share of the groups, or of the labelled pixels of each class, that choose the best check, where the list
            does not name them.
        test: share of them that is scored once, at the end, where the list does not name them.
        batch_size: scenes, or windows of scenes, per step.
        scale: share of a scene's area that a training crop covers, smallest and largest, where crops are resized.
        training: how to train.
        draws: bootstrap resamples of the test groups or blocks.
    """

    images: Images
    task: Literal["classify", "regress", "segment", "cloud_mask"] = "classify"
    maps: LabelMaps = field(default_factory=LabelMaps)
    cloud_widths: tuple[int, ...] = CloudMask.widths
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
        if self.task != "cloud_mask" and self.cloud_widths != CloudMask.widths:
            raise ConfigError(f"--cloud_widths has no effect on the task '{self.task}': leave it out.")
        if self.task in ("segment", "cloud_mask") and (self.ordinal != "auto" or self.scale != (0.5, 1.0)):
            raise ConfigError(f"--ordinal and --scale have no effect on the task '{self.task}': leave them out.")
        if self.task == "segment":
            return
        used = [f.name for f in fields(LabelMaps) if getattr(self.maps, f.name) != f.default]
        if used:
            raise ConfigError(
                f"--maps.{used[0]} has no effect on the task '{self.task}': use --task=segment, or leave it out."
            )
        self.of_images()

    def of_images(self) -> FinetuneImages:
        """Give the options for labels of whole scenes."""
        names = ("images", "ordinal", "split", "validation", "test", "batch_size", "scale", "training", "draws")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.task == "cloud_mask":  # a section lies below the whole scene as it is, and nowhere in a part of it
            return FinetuneImages(**(given | {"scale": (1.0, 1.0)}))
        return FinetuneImages(task="regress" if self.task == "regress" else "classify", **given)


def linear() -> FinetuneScenes:
    """Train a linear classifier of scenes on the frozen encoder: a minute on a CPU."""
    return FinetuneScenes(images=Images(encoder=""), training=linear_training())


def full() -> FinetuneScenes:
    """Train a classifier of scenes and its encoder with layer-wise decaying rates (MAE, arXiv 2111.06377, table 9)."""
    return FinetuneScenes(images=Images(encoder=""), training=full_training())


def regress() -> FinetuneScenes:
    """Train a linear regression of a number per scene on the frozen encoder."""
    training = replace(linear_training(), balanced=False, select="R2")
    return FinetuneScenes(images=Images(encoder=""), task="regress", training=training)


def segment() -> FinetuneScenes:
    """Train a linear map from the frozen encoder's last level to classes of pixels: minutes on a CPU, coarse outlines."""
    training = replace(linear_training(), select="mean IoU")
    return FinetuneScenes(images=Images(encoder=""), task="segment", training=training)


def upernet() -> FinetuneScenes:
    """Train a pyramid of levels (UPerNet, arXiv 1807.10221) and the encoder to classes of pixels."""
    training = replace(full_training(), select="mean IoU", label_smoothing=0.0)
    return FinetuneScenes(
        images=Images(encoder=""), task="segment", maps=LabelMaps(head="upernet"), batch_size=8, training=training
    )


def cloud_mask() -> FinetuneScenes:
    """Train SatVision-TOA's head for the clouds on a vertical section, and the encoder (arXiv 2411.17000)."""
    training = replace(full_training(), select="IoU", label_smoothing=0.0, balanced=False)
    return FinetuneScenes(images=Images(encoder=""), task="cloud_mask", training=training)


PRESETS = {
    "linear": linear,
    "full": full,
    "regress": regress,
    "segment": segment,
    "upernet": upernet,
    "cloud_mask": cloud_mask,
}


def refuse(config: FinetuneScenes, options: Options) -> None:
    """Refuse before any work; see `domains.verbs.finetune.check`.

    Raises:
        ConfigError: pixels have neither rasters nor a column that names them, or two of both.
    """
    check(SATELLITE, config.images, options)
    if config.task == "segment" and bool(config.maps.rasters) == (config.images.label is not None):
        raise ConfigError(
            "expected --rasters, or --label with the column that names the label raster of each scene, and not both."
        )


def run(config: FinetuneScenes, options: Options) -> Path:
    """Train, test and save."""
    given = config.of_images()
    if config.task == "segment":
        return segmenting.run(given, config.maps, options, config)
    if config.task == "cloud_mask":
        return sections.run(given, config.cloud_widths, options, config)
    return run_images(SATELLITE, given, options, record=config)


_OF_MAPS = {f.name: f"maps.{f.name}" for f in fields(LabelMaps) if f.name not in ("head", "width")}

if __name__ == "__main__":
    main(
        Verb(
            config=FinetuneScenes,
            run=run,
            description=__doc__ or "",
            presets=PRESETS,
            default_preset="linear",
            aliases=ALIASES | _OF_MAPS,
            check=refuse,
            overwrites=OVERWRITES,
        )
    )
