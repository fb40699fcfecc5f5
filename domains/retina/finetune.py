"""Train a classifier of retina images, or a regression of a number, on top of a pretrained encoder.

    python -m domains.retina.finetune full    --encoder runs/mine --data labels.csv --label retinopathy_grade --out runs/grades
    python -m domains.retina.finetune regress --encoder runs/mine --data labels.csv --label age --out runs/age

A list's own column `split` (train, val, test) is kept; what it does not name is dealt by group. Keeps the best check on
validation; scores the test images once, with 95 % intervals. Writes config.yaml, metrics.jsonl, encoder/, head.safetensors,
predictions.parquet, scores.json and report.html. New images are answered in Python (`core.heads.load.load_model`, README.md).
"""

from __future__ import annotations

from dataclasses import replace

from core.cli import main
from domains.retina.collection import RETINA
from domains.verbs.features import Images
from domains.verbs.finetune import FinetuneImages, verb
from domains.verbs.training import full_training, linear_training


def linear() -> FinetuneImages:
    """Train a linear head on the frozen encoder: a minute on a CPU, the label-efficient choice below 1,000 images."""
    return FinetuneImages(images=Images(encoder=""), training=linear_training())


def full() -> FinetuneImages:
    """Train head and encoder with layer-wise decaying rates (MAE, arXiv 2111.06377, table 9: decay 0.75, smoothing 0.1)."""
    return FinetuneImages(images=Images(encoder=""), training=full_training())


def regress() -> FinetuneImages:
    """Train a linear regression of a number per image, such as age or acuity, on the frozen encoder."""
    training = replace(linear_training(), balanced=False, select="R2")
    return FinetuneImages(images=Images(encoder=""), task="regress", training=training)


PRESETS = {"linear": linear, "full": full, "regress": regress}

if __name__ == "__main__":
    main(verb(RETINA, __doc__ or "", PRESETS, "linear"))
