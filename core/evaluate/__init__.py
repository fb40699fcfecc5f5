"""What features are worth: arrays in, table with intervals out. No file, image or encoder is opened here."""

from core.evaluate.baselines import ENCODER, PIXEL_STATISTICS, RANDOM_WEIGHTS, pixel_statistics
from core.evaluate.curve import Curve, Point, PointDifference
from core.evaluate.knn import NearestNeighbours
from core.evaluate.probe import LinearProbe
from core.evaluate.protocol import evaluate
from core.evaluate.table import Difference, LabelClass, Row, Table

__all__ = [
    "ENCODER",
    "PIXEL_STATISTICS",
    "RANDOM_WEIGHTS",
    "Curve",
    "Difference",
    "LabelClass",
    "LinearProbe",
    "NearestNeighbours",
    "Point",
    "PointDifference",
    "Row",
    "Table",
    "evaluate",
    "pixel_statistics",
]
