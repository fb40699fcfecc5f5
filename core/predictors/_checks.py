"""What several predictors ask of their own width and of the encoder's tokens."""

from __future__ import annotations

from core.encoders.base import Backbone
from core.errors import ConfigError


def check_width(width: int, heads: int, depth: int) -> None:
    """Refuse blocks that cannot be built.

    Raises:
        ConfigError: an odd width, one that the heads do not divide, or no block.
    """
    if heads < 1 or width < 1 or width % heads or width % 2 or depth < 1:
        raise ConfigError(
            f"expected an even predictor width that the heads divide and depth >= 1, got width {width}, {heads} heads, "
            f"depth {depth}."
        )


def check_apart(encoder: Backbone) -> None:
    """Refuse an encoder whose tokens are not those of the plan.

    Raises:
        ConfigError: it merges tokens.
    """
    for entry in encoder.contract.inputs:
        if encoder.level_grid(encoder.num_levels, entry.grid()) != entry.grid():
            raise ConfigError(
                f"expected an encoder that keeps its tokens apart, got {type(encoder).__name__}, which merges them: "
                "choose the predictor 'linear' or 'u_decoder'."
            )
