"""One optimiser step: forward, backward, clip, update, and what happens when a number is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from core.batch import Batch
from core.engine.distributed import World
from core.engine.shard import whole
from core.engine.state import State
from core.errors import ConfigError, NumericsError

_IN_ROW = 5
_PER_STEPS = 1000


@dataclass(frozen=True)
class Precision:
    """The number format of forward and backward; weights and optimiser state are float32 in either.

    Attributes:
        name: `fp32` or `bf16`.
        device: where.
        keep_casts: keep a weight's bf16 copy until the pass ends; False where the weight itself is not kept either.
    """

    name: str
    device: torch.device
    keep_casts: bool = True

    @classmethod
    def of(cls, wish: str, device: torch.device) -> Precision:
        """Resolve `how.precision`.

        Raises:
            ConfigError: bf16 was asked for and the card has none.
        """
        able = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
        if wish == "bf16" and not able:
            raise ConfigError(f"option 'how.precision': {device} has no bf16: use fp32 or auto.")
        wanted = wish == "bf16" or (wish == "auto" and able and device.type == "cuda")
        return cls("bf16" if wanted else "fp32", device)

    def autocast(self) -> AbstractContextManager[object]:
        """Enter the format for a forward pass."""
        if self.name != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.keep_casts)


@dataclass(frozen=True)
class Outcome:
    """What a step did, the same on every rank.

    Attributes:
        loss: of the global batch.
        terms: each term of it.
        grad_norm: L2 norm of the whole gradient before clipping.
        finite: False = the weights were left alone.
        stop: some rank was asked to leave.
    """

    loss: float
    terms: dict[str, float]
    grad_norm: float
    finite: bool
    stop: bool


def train_step(
    model: nn.Module,
    optimizer: AdamW,
    batch: Batch,
    *,
    accumulate: int,
    clip_norm: float | None,
    precision: Precision,
    world: World,
    stop: bool = False,
) -> Outcome:
    """Make one update from this rank's batch, or none where loss or gradient is not finite.

    With `accumulate` above 1 the loss is the mean of the slices' losses: each slice counts the same, however many
    valid tokens it has. The one transfer from the device (loss, norm, the wish to stop) happens before the update,
    because the update depends on it.
    """
    optimizer.zero_grad(set_to_none=True)
    losses, terms = [], []
    for index, part in enumerate(slices(batch, accumulate)):
        with _local(model, index + 1 < accumulate):
            with precision.autocast():
                output = model(part, part.rng)
            (output.loss / accumulate).backward()
        losses.append(output.loss.detach())
        terms.append(output.terms)

    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    names = sorted(terms[0])
    means = [torch.stack(losses).mean(), *(torch.stack([t[name] for t in terms]).mean() for name in names)]
    total = whole(norm)  # over all ranks, where each holds a part of the gradient
    told = torch.stack([value.to(torch.float64) for value in (*means, total, total.new_tensor(float(stop)))])
    loss, *values, grad_norm, stopping = (world.sum(told) / world.size).tolist()

    finite = all(abs(value) < float("inf") for value in (loss, grad_norm))  # False for NaN as well
    if finite:
        if clip_norm is not None:
            nn.utils.clip_grads_with_norm_([p for g in optimizer.param_groups for p in g["params"]], clip_norm, norm)
        optimizer.step()
    return Outcome(loss, dict(zip(names, values, strict=True)), grad_norm, finite, stopping > 0)


def slices(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into `count` equal, consecutive batches.

    Raises:
        ConfigError: they would not be equal.
    """
    if len(batch) % count:
        raise ConfigError(
            f"option 'optim.accumulate': expected a number that divides each process's share of a batch, {len(batch)}, "
            f"got {count}."
        )
    size = len(batch) // count
    for first in range(0, len(batch), size):
        yield batch if count == 1 else pick(batch, slice(first, first + size))


def pick(batch: Batch, samples: slice) -> Batch:
    """Select samples of a batch."""
    chosen = {name: value[samples] for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **chosen)  # type: ignore[arg-type]


def count_skipped(state: State, outcome: Outcome, steps: int, rows: list[int]) -> None:
    """Keep count of steps that were skipped, and give up when they are many: 5 in a row, or over 0.1 % of the run.

    Raises:
        NumericsError: names the step and the rows of the manifest that it used.
    """
    if outcome.finite:
        state.skipped_in_row = 0
        return
    state.skipped, state.skipped_in_row = state.skipped + 1, state.skipped_in_row + 1
    allowed = max(1, steps // _PER_STEPS)
    if state.skipped_in_row >= _IN_ROW or state.skipped > allowed:
        raise NumericsError(
            f"expected finite numbers, got loss {outcome.loss} and gradient norm {outcome.grad_norm} at step "
            f"{state.step} from rows {rows} of the manifest: {state.skipped} steps were skipped, "
            f"{state.skipped_in_row} in a row (allowed: {allowed}, {_IN_ROW - 1} in a row): "
            "lower optim.lr, set optim.clip_norm, or look at these images."
        )


def _local(model: nn.Module, more_to_come: bool) -> AbstractContextManager[object]:
    """Leave gradients on this rank until the last slice; a shared-out recipe sums each slice's, for want of memory."""
    if more_to_come and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
