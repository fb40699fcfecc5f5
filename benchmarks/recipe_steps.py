"""What a step of every recipe costs beside a step of MAE: operations counted, time measured, against the declared cost.

    python -m benchmarks.recipe_steps --rounds 5

ViT-B/16 (or S with `--size small`) at 224 px with MAE's decoder, 8 x 512, wherever a recipe takes a decoder; each recipe
races MAE in rounds, CPU seconds of one thread. The declared cost (`core.list_recipes()`) counts multiply-adds of
transformer layers; a ratio that is more than a quarter off is marked.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Ratio, interleave, machine, publish, rounded
from core import registry
from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.base import EncoderSpec
from core.encoders.convnet import ConvNetSpec
from core.encoders.vit import ViTSpec
from core.predictors.base import PredictorSpec
from core.predictors.cross_attention import CrossAttentionSpec
from core.predictors.linear import LinearSpec
from core.predictors.transformer import TransformerSpec
from core.recipes.base import Recipe, StepOutput
from core.rng import key
from core.testing.samples import filled

TOLERANCE = 0.25
OWN_DECODERS: dict[str, PredictorSpec] = {  # where the declared cost is with the paper's own decoder, not MAE's
    "a2mim": LinearSpec(),
    "latent_mim": CrossAttentionSpec(width=512, depth=3, heads=16),
    "localmim": TransformerSpec(width=256, depth=1, heads=8),
    "multimae": TransformerSpec(width=256, depth=2, heads=8),
}


@dataclass(frozen=True)
class Size:
    """An encoder and a decoder; `spark` has a ConvNeXt-B, or one of half its width, in place of the ViT."""

    width: int
    heads: int
    conv_widths: tuple[int, ...]
    decoder: tuple[int, int, int] = (512, 8, 16)


SIZES = {"base": Size(768, 12, (128, 256, 512, 1024)), "small": Size(384, 6, (64, 128, 256, 512))}


def build(name: str, size: Size) -> Recipe:
    """Build a recipe at full size with fresh weights."""
    entry = Input(
        name="photograph",
        bands=("red", "green", "blue"),
        patch=(16, 16),
        size=(224, 224),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    if name == "multimae":  # three groups, as the paper has three modalities
        entry = replace(entry, groups=tuple((band,) for band in entry.bands))
    if name == "spark":  # a ConvNeXt's stride is 32: 49 tokens
        entry = replace(entry, patch=(32, 32))
    contract = Contract(inputs=(entry,))
    encoder: EncoderSpec = ViTSpec(contract=contract, width=size.width, depth=12, heads=size.heads)
    if name == "spark":
        encoder = ConvNetSpec(contract=contract, widths=size.conv_widths, depths=(3, 3, 27, 3))
    width, depth, heads = size.decoder
    decoder = OWN_DECODERS.get(name, TransformerSpec(width=width, depth=depth, heads=heads))
    return filled(registry.get("recipes", name), encoder, decoder).build()


def batch_for(recipe: Recipe, count: int) -> Batch:
    """Make a batch of noise of the size that the recipe's loader would give."""
    entry = recipe.encoder.contract.inputs[0]
    image = torch.randn(count, 3, *(n * recipe.detail for n in entry.size), generator=torch.Generator().manual_seed(0))
    rows = torch.arange(count)
    return Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.ones(count, 2),
        unit="px",
        offset=torch.zeros(count, 3),
        scale=torch.ones(count, 3),
        key=torch.tensor([key(0, index) for index in range(count)]),
        index=rows,
        row=rows,
    )


class Step(nn.Module):
    """A whole training step of a recipe."""

    def __init__(self, recipe: Recipe, batch: Batch) -> None:
        super().__init__()
        self.recipe, self.batch = recipe.train(), batch
        recipe.progress.fill_(0.5)
        self.optimizer = torch.optim.AdamW((p for p in recipe.parameters() if p.requires_grad), lr=1e-5)

    def loss(self) -> Tensor:
        output: StepOutput = self.recipe(self.batch, self.batch.rng)
        return output.loss

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        self.recipe.updated()


def operations(step: Step) -> float:
    """Count forward and backward pass, teachers included."""
    known = {torch.ops.aten.convolution_backward: _convolution_backward}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=known) as counter:
        step.loss().backward()
    return float(counter.get_total_flops())


def _convolution_backward(grad: torch.Size, image: torch.Size, weight: torch.Size, *rest: Any, **_: Any) -> int:
    """Count as many operations for each gradient as forwards; torch counts a depthwise convolution as a dense one."""
    transposed, asked = rest[4], rest[7]
    forwards = 2 * math.prod(image if transposed else grad) * math.prod(weight[1:])
    return forwards * sum(bool(one) for one in asked[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--only", default="", help="comma-separated names; none = every recipe")
    parser.add_argument("--json", type=Path, help="append one JSON line per recipe to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = {"machine": machine(torch.device("cpu")), "size": options.size, "batch": options.batch}
    mae = build("mae", SIZES[options.size])
    reference = Step(mae, batch_for(mae, options.batch))
    base = operations(reference)
    for name in options.only.split(",") if options.only else registry.names("recipes"):
        recipe = build(name, SIZES[options.size])
        step = Step(recipe, batch_for(recipe, options.batch))
        counted = operations(step) / base
        times = interleave({"mae": reference, name: step}, options.rounds, clock=process_time)
        ratio = Ratio.of(times[name], times["mae"])
        declared = registry.get("recipes", name).cost
        record: dict[str, Any] = {"recipe": name, "declared": declared, "operations": round(counted, 2)}
        record |= {"time": rounded(ratio), "agrees": abs(ratio.median / declared - 1) <= TOLERANCE}
        publish([record], where, options.json)
        mark = "" if record["agrees"] else "   more than 25 % off"
        text = f"  {name:<14} declared {declared:5.2f}   operations {counted:5.2f}   time {ratio.median:5.2f}{mark}"
        print(text, file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
