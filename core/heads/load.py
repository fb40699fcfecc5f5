"""An encoder and a head as one model: joined, saved in a run folder, loaded again.

A run folder holds `encoder/` (what `load_encoder` reads), `head.safetensors` and `head.json`:

    format     1
    task       classify, segment, regress or cloud_mask
    spec       the head, as `core.config.to_dict` writes a part
    ndim       axes of the images, 2 or 3
    pool       how tokens become the vector that the head reads
    classes    names of the K answers, or of the numbers of a regression
    colours    one [red, green, blue] (0 to 255) per class, or none
    units      one per number of a regression, or none
    digests    of head.safetensors
    about      plain facts, such as where it comes from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.config import from_dict, to_dict
from core.contract import Contract
from core.encoders.load import Encoder, load_encoder
from core.errors import CheckpointError, ConfigError, MissingDataError
from core.heads._maps import FeatureMaps, level_factors, spread_levels
from core.heads.base import HeadSpec
from core.weights import FORMAT, file_digest, place, read_weights, write_weights

Task = Literal["classify", "segment", "regress", "cloud_mask"]
Colour = tuple[int, int, int]
DESCRIPTION, WEIGHTS = "head.json", "head.safetensors"


class Model(nn.Module):
    """An encoder with a head.

    Attributes:
        features: the encoder, or what lays its tokens out as maps.
        head: from features to the answer.
        spec: what the head was built from, with the levels that it reads.
        task: what the answer means.
        classes: names of its K channels.
        colours: of the classes, for maps; none = not chosen.
        units: of the numbers of a regression.
        ndim: axes of the images.
        about: plain facts that were stored with it.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: HeadSpec,
        *,
        task: Task,
        classes: tuple[str, ...],
        colours: tuple[Colour, ...] = (),
        units: tuple[str, ...] = (),
        ndim: int = 2,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if task not in get_args(Task):
            raise ConfigError(f"expected a task of {', '.join(get_args(Task))}, got '{task}'.")
        for name, given in (("colour", colours), ("unit", units)):
            if given and len(given) != len(classes):
                raise ConfigError(f"expected one {name} for each of {classes}, got {given}.")
        spec = suited(spec, encoder)
        levels: tuple[int, ...] = getattr(spec, "levels", ())
        self.features: nn.Module = encoder if spec.reads == "vector" else FeatureMaps(encoder, levels)
        self.head = spec.build(*_widths(encoder, spec, levels), ndim=ndim).to(next(encoder.parameters()).device)
        self.spec, self.task, self.classes = spec, task, classes
        self.colours, self.units, self.ndim, self.about = colours, units, ndim, dict(about or {})

    @property
    def encoder(self) -> Encoder:
        """The encoder."""
        return self.features.encoder if isinstance(self.features, FeatureMaps) else cast(Encoder, self.features)

    @property
    def contract(self) -> Contract:
        """What it expects of its input."""
        return self.encoder.contract

    def forward(self, batch: Batch) -> Tensor:
        """Answer: logits (B, K), (B, K, *S) or (B, 1, 91, 40), or the numbers of a regression in units of the labels.

        Raises:
            BandError: no input of the contract has this rank and these bands.
            ShapeError: sizes that the patch does not divide.
        """
        answer: Tensor = self.head(self.features(batch).float())
        return answer

    def probabilities(self, batch: Batch) -> Tensor:
        """Answer with class probabilities, which may be averaged over windows; a regression's numbers as they are."""
        return as_probabilities(self(batch).float(), self.task)


def as_probabilities(answer: Tensor, task: Task) -> Tensor:
    """Turn logits into probabilities over axis 1; a cloud mask is yes or no at each place; numbers stay as they are."""
    if task == "regress":
        return answer
    return answer.sigmoid() if task == "cloud_mask" else answer.softmax(1)


def suited(spec: HeadSpec, encoder: Encoder) -> HeadSpec:
    """Fill in which levels of this encoder a head reads, where that was left open."""
    given: Any = spec
    if spec.reads != "levels":
        return spec
    levels = given.levels or spread_levels(encoder.backbone)
    factors = given.factors or level_factors(encoder.backbone, levels)
    chosen: HeadSpec = replace(given, levels=levels, factors=factors)
    return chosen


def _widths(encoder: Encoder, spec: HeadSpec, levels: tuple[int, ...]) -> tuple[int, ...]:
    if spec.reads == "vector":
        return (encoder.num_features,)
    if spec.reads == "map":
        return (encoder.backbone.num_features,)
    return tuple(encoder.backbone.level_width(level) for level in levels)


def write_head(folder: Path, model: Model) -> None:
    """Write `head.safetensors` and `head.json` into a folder that is being filled; the encoder is exported beside them."""
    write_weights(folder / WEIGHTS, model.head.state_dict())
    facts = {
        "format": FORMAT,
        "task": model.task,
        "spec": to_dict(model.spec),
        "ndim": model.ndim,
        "pool": model.encoder.pool,
        "classes": list(model.classes),
        "colours": [list(colour) for colour in model.colours],
        "units": list(model.units),
        "digests": {WEIGHTS: file_digest(folder / WEIGHTS)},
        "about": model.about,
    }
    (folder / DESCRIPTION).write_text(json.dumps(facts, indent=2), encoding="utf-8")


def load_model(run: str | Path, *, device: str | torch.device = "cpu") -> Model:
    """Load what a fine-tuning has stored, in evaluation mode.

    Args:
        run: a run folder with `encoder/`, `head.json` and `head.safetensors`.
        device: where to put it.

    Raises:
        MissingDataError: there is no head, or no encoder, in that folder.
        CheckpointError: the format is unknown, or weights do not fit their description.
    """
    folder = Path(run)
    description = folder / DESCRIPTION
    if not description.is_file():
        raise MissingDataError(f"{folder}: expected a run folder of `finetune` with {DESCRIPTION}; train a head first.")
    stored = _facts(description)
    encoder = load_encoder(folder / "encoder", pool=stored["pool"], device=device)
    model = Model(
        encoder,
        from_dict(HeadSpec, stored["spec"]),  # type: ignore[type-abstract]
        task=stored["task"],
        classes=tuple(stored["classes"]),
        colours=tuple(cast(Colour, tuple(colour)) for colour in stored["colours"]),
        units=tuple(stored["units"]),
        ndim=stored["ndim"],
        about=stored["about"],
    )
    weights = folder / WEIGHTS
    place(model.head, read_weights(weights, digest=stored["digests"][WEIGHTS]), source=str(weights))
    return model.eval()


def _facts(description: Path) -> dict[str, Any]:
    try:
        stored = json.loads(description.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{description}: expected JSON, got: {error}.") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise CheckpointError(f"{description}: expected a head of format {FORMAT}; it was written by another version.")
    wanted = ("task", "spec", "ndim", "pool", "classes", "colours", "units", "digests", "about")
    missing = [name for name in wanted if name not in stored]
    if not missing and WEIGHTS not in stored["digests"]:  # without it, damaged weights would be taken as they are
        missing = [f"the digest of {WEIGHTS}"]
    if missing:
        raise CheckpointError(f"{description}: expected {', '.join(missing)}; bring the file back from a copy.")
    return stored
