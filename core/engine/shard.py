"""A recipe that is shared out among ranks: each holds a part of every weight, gradient and moment (`how.shard=full`).

FSDP2, torch's `fully_shard` (Zhao et al. 2023, arXiv 2304.11277; ZeRO stage 3, Rajbhandari et al. 2019, arXiv 1910.02054).
A block is put together when it runs and taken apart after it. All else, and the last block of every list, is put together
for the whole step: attention of the class token reads that block's weights from outside. Numbers are those of whole
weights: what is put together is float32, as is the average of gradients, and autocast does what it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from core.engine.distributed import World
from core.engine.optim import Group
from core.recipes.base import Recipe


def compile_blocks(recipe: Recipe) -> None:
    """Compile each block for itself: what FSDP2 does between blocks cannot be fused."""
    for blocks in block_lists(recipe):
        for block in blocks:
            block.compile()


def block_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    """Find the stacks of equal blocks: every list of modules that is called `blocks`."""
    for name, child in module.named_modules():
        if isinstance(child, nn.ModuleList) and name.rpartition(".")[2] == "blocks":
            yield child


def shard(recipe: Recipe, world: World) -> None:
    """Share a recipe out among all ranks, in place, each part on its rank's device; parameters become `DTensor`s.

    The recipe may lie on the CPU: one block after another moves, so that the device never holds the whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for blocks in block_lists(recipe):
        for block in list(blocks)[:-1]:
            fully_shard(block, mesh=mesh)
    fully_shard(recipe, mesh=mesh)
    recipe.to(world.device)


def is_sharded(recipe: nn.Module) -> bool:
    """Say whether a recipe was shared out; after an evaluation some of its parameters stand whole, or all."""
    return hasattr(recipe, "reshard")


def _is_part(value: Tensor) -> bool:
    """Tell a `DTensor`, whose import takes a second that runs without sharding need not spend."""
    return hasattr(value, "full_tensor")


def renewed(groups: Sequence[Group], recipe: nn.Module) -> list[Group]:
    """Give optimiser groups that were made before the recipe was shared out, with the parameters that it has now."""
    parameters = dict(recipe.named_parameters())
    return [{**group, "params": [parameters[name] for name in group["names"]]} for group in groups]


def whole(value: Tensor) -> Tensor:
    """Put a tensor together where it is shared out; all ranks must ask at once."""
    together: Any = value
    return together.full_tensor() if _is_part(value) else value


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Give the part of a whole tensor that this rank holds of another one; the whole where that is not shared out.

    Args:
        value: the same on every rank.
        like: of the same shape, whose layout is taken.
    """
    if not _is_part(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    layout: Any = like
    return distribute_tensor(value.to(like.device), layout.device_mesh, layout.placements, src_data_rank=None)


def whole_weights(recipe: Recipe, module: nn.Module, world: World) -> dict[str, Tensor]:
    """Collect the weights of a recipe, or of a module in it, on rank 0's CPU, one at a time; elsewhere nothing.

    All ranks must ask at once.
    """
    found: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        together = whole(value)
        if world.is_main:
            found[name] = together.detach().cpu().contiguous().clone()
    return found


def parts_of(values: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give this rank's part of each tensor that has a namesake; the others as they are."""
    return {name: part_of(value, like[name]) if name in like else value for name, value in values.items()}
