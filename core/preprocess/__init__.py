"""From raw values to what an encoder reads: content mask, whole-image fit, value space. The one implementation.

`datasets` (training and validation samples) and `Encoder.preprocess` (a user's array) both call these functions, so the
two cannot drift apart. Arrays are numpy, array order, `valid` True = measured data; what an image holds where it is not
valid never reaches a result. Reading files and drawing crops live in `datasets`.
"""

from core.preprocess.content import everywhere, finite, foreground, measured
from core.preprocess.value_space import clip_bounds, full_scale, measure, offset_scale, percentiles, physical
from core.preprocess.whole import Prepared, is_native, prepare
from core.preprocess.windows import (
    Window,
    centred,
    content_box,
    cut,
    fit,
    placed,
    resample,
    resized,
    window_of,
)
from core.sensors._ranges import check_magnitude, check_range

__all__ = [
    "Prepared",
    "Window",
    "centred",
    "check_magnitude",
    "check_range",
    "clip_bounds",
    "content_box",
    "cut",
    "everywhere",
    "finite",
    "fit",
    "foreground",
    "full_scale",
    "is_native",
    "measure",
    "measured",
    "offset_scale",
    "percentiles",
    "physical",
    "placed",
    "prepare",
    "resample",
    "resized",
    "window_of",
]
