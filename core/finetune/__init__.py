"""Supervised training on top of an encoder: a head alone, or everything with layer-wise decaying steps.

`Targets` say what is learnt: a class per image (`Labelled`), numbers (`Measured`), a class per pixel (`Mapped`) or the
section of a cloud mask (`Sections`). The best check is chosen on the validation split alone.
"""

from core.finetune.classes import Labelled
from core.finetune.config import Finetune, Select
from core.finetune.loop import Check, Examined, Finetuned, Log, Predictions, examine, finetune, predict
from core.finetune.maps import Mapped, Sections, cloud_scores
from core.finetune.numbers import Measured
from core.finetune.targets import OTHER_SPLIT, Example, Split, Targets

__all__ = [
    "OTHER_SPLIT",
    "Check",
    "Examined",
    "Example",
    "Finetune",
    "Finetuned",
    "Labelled",
    "Log",
    "Mapped",
    "Measured",
    "Predictions",
    "Sections",
    "Select",
    "Split",
    "Targets",
    "cloud_scores",
    "examine",
    "finetune",
    "predict",
]
