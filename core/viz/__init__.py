"""Arrays to pictures: colour from bands, hidden and missing areas, slices of volumes, token maps, panels.

Arrays come in the house's order, (C Y X) or (C Z Y X), in any value space; pictures go out as uint8 (Y X 3) or, with
transparency, (Y X 4). No chart lives here, and nothing that knows of a run beyond the folder its pictures are written to.
"""

from core.viz.colour import (
    NATURAL,
    Colours,
    Pixels,
    Window,
    colours,
    further_colours,
    natural,
    principal_directions,
    ramp,
    shown_bands,
    stretch,
    to_rgb,
    token_pca,
)
from core.viz.layers import (
    HIDDEN_TINT,
    classes_over,
    clear_nodata,
    faded,
    has_nodata,
    hatch,
    mask_overlay,
    save_png,
    to_voxels,
)
from core.viz.panels import Column, Row, central_slices, panels, save_panels, save_rows, spoken

__all__ = [
    "HIDDEN_TINT",
    "NATURAL",
    "Colours",
    "Column",
    "Pixels",
    "Row",
    "Window",
    "central_slices",
    "classes_over",
    "clear_nodata",
    "colours",
    "faded",
    "further_colours",
    "has_nodata",
    "hatch",
    "mask_overlay",
    "natural",
    "panels",
    "principal_directions",
    "ramp",
    "save_panels",
    "save_png",
    "save_rows",
    "shown_bands",
    "spoken",
    "stretch",
    "to_rgb",
    "to_voxels",
    "token_pca",
]
