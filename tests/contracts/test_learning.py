"""Every recipe learns, for three seeds out of three, on gratings of four directions in noise.

The direction is the one thing that a pixel's neighbourhood tells and its value does not; phase, contrast and noise are
drawn anew for every image.

- The loss falls: on held-out images under fixed masks, from what the first weights reach to what the learned ones do. Both
  are held against the teacher, centres and masks of the *end*, since a loss against a teacher that moves may rise while its
  student learns (of iBOT it is nearly 0 at first, when all patches look alike to teacher and student). For recipes without
  a moving teacher that is the loss before and after training.
- Where the target moves a student that knows nothing can beat its first weights: it need only learn what the teacher says
  on average. There the loss must also be below that of the best guess that does not depend on the image.
- The probe: a linear classifier of the direction on frozen features is right more often than with the encoder's first
  weights, by two points out of a hundred at least.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from core import registry
from core.batch import Batch
from core.contract import Input, Normalisation
from core.encoders.base import Backbone
from core.encoders.load import Encoder
from core.engine.config import Optim
from core.engine.optim import decay_groups, make_optimizer, set_learning_rate
from core.recipes import ibot
from core.recipes.base import Recipe
from core.recipes.latent_mim import LatentMimRecipe
from core.rng import key
from core.testing.samples import learner_spec
from core.testing.texts import PIECES
from core.weights import Placement

pytestmark = pytest.mark.slow

GRATING = Input(
    name="grating",
    bands=("first", "second"),
    patch=(8, 8),
    size=(32, 32),
    spacing=(1.0, 1.0),
    unit="px",
    normalisation=Normalisation(method="per_image"),
)
NOISE = 0.9  # deviation; a wave's is 0.7 on average
SEEDS = (0, 1, 2)
BATCH, POOL = 32, 1024
SHORT = (60, 3e-3)  # steps and learning rate: the probe then gains 12 points or more, of which 2 are asked
LENGTHS = {
    "attmask": (80, 3e-3),
    "ibot": (80, 3e-3),
    "latent_mim": (100, 3e-3),
    "maskalign": (100, 3e-3),
    "dbot": (150, 3e-3),  # two stages, each from fresh weights
    # histograms of noisy gradients differ little from their mean, which is learned first, for a hundred steps
    "fg_mae": (250, 1e-3),
    "localmim": (180, 1e-3),
    "maskfeat": (200, 1e-3),
    "shape_aware": (50, 3e-3),  # most of a step is the masker's; what pixels teach is learned by then
}
PROBED = (100, 1000)  # images to learn the probe from, few so that features must be good, and to score it on
WORDS = 4  # of a report: the name of its direction, so often


@dataclass(frozen=True)
class Learned:
    """What a run came to.

    Attributes:
        first: loss on held-out images of the first weights, teacher and centres being those of the end.
        last: loss of the learned weights.
        blind: loss of the best guess that does not depend on the image, where the target moves; else infinite.
        before: share of directions that the probe of the first weights tells.
        after: the same of the encoder that is kept.
    """

    first: float
    last: float
    blind: float
    before: float
    after: float


@functools.cache
def gratings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw images (count, 2, 32, 32) and their directions, 0 to 3.

    Waves are a little shorter than a patch: neighbouring patches then differ little in phase, so that pixels can be told
    from afar, and enough for their features to be told apart.
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    direction = torch.randint(4, (count,), generator=draw)
    angle = (direction + 0.2 * (uniform(count) - 0.5)) * math.pi / 4
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    wave = torch.sin(0.85 * along + 2 * math.pi * uniform(count, 1, 1))
    noise = torch.randn(count, 2, 32, 32, generator=draw)
    return wave[:, None] * (0.5 + uniform(count, 2, 1, 1)) + NOISE * noise, direction


def batch_of(images: Tensor, directions: Tensor, epoch: int, detail: int) -> Batch:
    """Make the batch that a recipe's loader would give."""
    count = len(images)
    images = images.repeat_interleave(detail, 2).repeat_interleave(detail, 3)
    return Batch(
        image=images,
        valid=torch.ones_like(images, dtype=torch.bool),
        bands=GRATING.bands,
        spacing=torch.full((count, 2), 1.0 / detail),
        unit="px",
        offset=torch.zeros(count, 2),
        scale=torch.ones(count, 2),
        key=torch.tensor([key(epoch, place) for place in range(count)]),
        index=torch.arange(count),
        row=torch.arange(count),
        text=(directions + PIECES.index("word0"))[:, None].repeat(1, WORDS),
    )


def probe(backbone: Backbone, seed: int) -> float:
    """Score a linear classifier of the direction on frozen features."""
    learned, scored = PROBED
    images, directions = gratings(learned + scored, 1000 + seed)
    encoder = Encoder(backbone, pool="mean", report=Placement(placed=())).eval()
    with torch.no_grad():
        features = encoder(images).numpy()
    features = (features - features[:learned].mean(0)) / (features[:learned].std(0) + 1e-6)
    model = LogisticRegression(max_iter=1000).fit(features[:learned], directions[:learned].numpy())
    return float(model.score(features[learned:], directions[learned:].numpy()))


def loss_of(recipe: Recipe, held: Batch) -> float:
    recipe.eval()
    with torch.no_grad():
        value = recipe(held, held.rng).loss.item()
    recipe.train()
    return value


def blind_loss(recipe: Recipe, held: Batch) -> float:
    """Compute the loss of the best guess that is the same for every image and patch; infinite where the target is still.

    Where each image brings its own candidates, as with `latent_mim`, it finds them equally likely.
    """
    if isinstance(recipe, ibot.SelfDistillation):
        seen: list[Tensor] = []
        with pytest.MonkeyPatch.context() as patch:
            inner = ibot.distilled

            def noting(logits: Tensor, distribution: Tensor, temperature: float) -> Tensor:
                seen.append(distribution)
                return inner(logits, distribution, temperature)

            patch.setattr(ibot, "distilled", noting)
            loss_of(recipe, held)
        means = [torch.cat(seen[:2]).mean(0), torch.cat(seen[2:]).mean(0)]  # class tokens; patches
        return sum(float(-torch.xlogy(mean, mean).sum()) for mean in means)
    if isinstance(recipe, LatentMimRecipe):
        hidden = recipe.masker(held, GRATING.grid(), held.rng).hide.sum(dim=1).float()
        return 2.0 * recipe.spec.temperature * float(hidden.log().mean())
    return math.inf


def learn(name: str, seed: int) -> Learned:
    """Train one recipe and hold it against its first weights."""
    steps, rate = LENGTHS.get(name, SHORT)
    torch.manual_seed(seed)
    recipe = learner_spec(name, GRATING).build()
    start = {name: each.detach().clone() for name, each in recipe.named_parameters() if each.requires_grad}
    before = probe(recipe.encoder, seed)
    optimizer = make_optimizer(decay_groups(recipe.named_parameters(), 0.05), Optim(lr=rate), torch.device("cpu"))
    images, directions = gratings(POOL, seed)
    for step in range(steps):
        rows = torch.randint(POOL, (BATCH,), generator=torch.Generator().manual_seed(key(seed, step)))
        recipe.progress.fill_(step / steps)
        set_learning_rate(optimizer, rate * min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        now = batch_of(images[rows], directions[rows], step, recipe.detail)
        optimizer.zero_grad(set_to_none=True)
        recipe(now, now.rng).loss.backward()
        optimizer.step()
        recipe.progress.fill_((step + 1) / steps)
        if recipe.updated():
            optimizer.state.clear()
    after = probe(recipe.kept(), seed)
    held = batch_of(*gratings(64, 500), epoch=-1, detail=recipe.detail)
    last, blind = loss_of(recipe, held), blind_loss(recipe, held)
    recipe.load_state_dict(recipe.state_dict() | start)
    return Learned(loss_of(recipe, held), last, blind, before, after)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", registry.names("recipes"))
def test_the_loss_falls_and_a_probe_beats_random_weights(name, seed):
    run = learn(name, seed)
    assert run.last < 0.98 * run.first
    assert run.last < 0.99 * run.blind
    assert run.after > run.before + 0.02
