"""How long the linear probe's own solver takes against scikit-learn's, and how near to the optimum each ends.

    python -m benchmarks.probe --data FOLDER [--images 50 200 800] [--rounds 3] [--json FILE] [--check]

Features of EuroSAT chips by a ViT with random weights, whose directions differ a millionfold in variance, as those of trained
encoders do; ten classes and the six penalties of the probe, each fit begun at the optimum before it. scikit-learn gets the
same standardised features, and once more their principal directions, with its default tolerance of 1e-4 and, where that
may pay, smaller ones. CPU seconds of one thread.

The error is the greatest difference of a probability from the optimum's, which is our solver's at a tolerance of 1e-7,
checked against a tolerance of 1e-6 (they differ by 1e-8). Gate: from 200 images on, where a path takes a third of a second or
more, no solver of scikit-learn that ends as near is faster.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Ratio, clock_of, gate, interleave, machine, publish, rounded, say_gates
from benchmarks.recipe_sets import load, whole
from core.contract import Contract
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.evaluate.inputs import encode_labels
from core.evaluate.logistic import fit_path, principal
from core.evaluate.probe import LinearProbe, standardise
from core.weights import Placement

SETTINGS = LinearProbe().settings
GATED = 200
"""Images from which on the gate holds."""
MOST_UNKNOWNS = 2500
"""Of newton-cholesky, which factorises a matrix of that many rows in every step: three times as many take minutes."""
Solve = Callable[[], np.ndarray]
"""Fits every penalty; gives the probabilities (settings, M, K) of all images."""


def features(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embed the scored half of EuroSAT, (M, 768), and number its classes, (M,)."""
    found = load("eurosat_rgb", data)
    torch.manual_seed(0)
    backbone = ViTSpec(contract=Contract(inputs=(found.entry,)), width=384, depth=12, heads=6).build()
    encoder = Encoder(backbone, pool="mean_std", report=Placement(placed=())).eval()
    rows = [int(row) for row in found.score]
    with torch.no_grad():
        parts = [encoder(whole(found, rows[at : at + 50], found.entry)).numpy() for at in range(0, len(rows), 50)]
    return np.concatenate(parts), encode_labels([found.labels[row] for row in rows], ordinal=False).codes


def ours(train: np.ndarray, codes: np.ndarray, queries: np.ndarray, *, tol: float) -> np.ndarray:
    """The probe's own solver."""
    classes, counts = np.unique(codes, return_counts=True)
    weights = (len(codes) / len(classes) / counts)[codes]
    fits = fit_path(
        train, codes, weights, num_classes=len(classes), settings=SETTINGS, max_iter=LinearProbe().max_iter, tol=tol
    )
    return np.stack([fit.probabilities(queries) for fit in fits])


def theirs(
    train: np.ndarray, codes: np.ndarray, queries: np.ndarray, *, solver: str, rotated: bool, tol: float
) -> np.ndarray:
    """scikit-learn's `LogisticRegression`, with or without the rotation that ours makes."""
    from sklearn.linear_model import LogisticRegression

    if rotated:
        share = torch.full((len(train),), 1 / len(train), dtype=torch.float64)
        basis = principal(torch.from_numpy(train), share)[0].numpy()
        train, queries = train @ basis, queries @ basis
    model = LogisticRegression(solver=solver, class_weight="balanced", tol=tol, max_iter=10_000, warm_start=True)
    likely = []
    for setting in SETTINGS:
        likely.append(model.set_params(C=setting).fit(train, codes).predict_proba(queries))
    return np.stack(likely)


def compare(given: np.ndarray, labels: np.ndarray, images: int, rounds: int, clock: Callable[[], float]) -> list[Any]:
    """Time every solver on the first `images`, and give one record for each and the gates."""
    train, queries = standardise(given[:images], given)
    codes = labels[:images]
    optimum = ours(train, codes, queries, tol=1e-7)
    solvers: dict[str, Solve] = {"ours": partial(ours, train, codes, queries, tol=LinearProbe().tol)}
    for solver, tols in (("lbfgs", (1e-4,)), ("newton-cg", (1e-4, 1e-5, 1e-6)), ("newton-cholesky", (1e-4,))):
        for rotated, tol in product((False, True), tols):
            directions = min(train.shape) if rotated else train.shape[1]
            if solver == "newton-cholesky" and directions * (codes.max() + 1) > MOST_UNKNOWNS:
                continue
            name = f"{solver}, {tol:g}{', rotated' if rotated else ''}"
            solvers[name] = partial(theirs, train, codes, queries, solver=solver, rotated=rotated, tol=tol)
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> None:
        found[name] = solvers[name]()

    times = interleave({name: partial(keep, name) for name in solvers}, rounds, clock=clock)
    records, gates = [], []
    for name, taken in times.items():
        error = float(np.abs(found[name] - optimum).max())
        ratio = Ratio.of(taken, times["ours"])
        record = {"images": images, "solver": name, "min_s": round(min(taken), 3), "error": float(f"{error:.2g}")}
        records.append(record | {"times_ours": rounded(ratio)})
        if name != "ours" and error <= 2 * records[0]["error"] and images >= GATED:
            gates.append(gate(f"{images} images: {name} / ours", ratio, floor=1.0))
    return records + gates


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with satellite/eurosat_rgb")
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 800], help="labelled images to learn from")
    parser.add_argument("--rounds", type=int, default=3, help="each runs every solver once")
    parser.add_argument("--json", type=Path, help="append one JSON line per record to this file")
    parser.add_argument("--check", action="store_true", help="exit 1 when a gate does not hold")
    options = parser.parse_args()
    clock = clock_of("cpu", torch.device("cpu"), parser)
    warnings.simplefilter("ignore")  # of scikit-learn, on fits that stop early: the error says it
    given, labels = features(options.data)
    order = np.random.default_rng(0).permutation(len(labels))
    where = {"date": time.strftime("%Y-%m-%d"), "machine": machine(torch.device("cpu")), "rounds": options.rounds}
    records = []
    for images in options.images:
        records += compare(given[order], labels[order], images, options.rounds, clock)
    publish(records, where, options.json)
    return 1 if not say_gates(records) and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
