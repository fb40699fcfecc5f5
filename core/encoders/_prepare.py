"""What every encoder does before it computes: find the input that fits, order bands by name, normalise."""

from __future__ import annotations

from core.batch import Batch
from core.contract import Contract, Input
from core.errors import DataError


def prepared(contract: Contract, batch: Batch) -> tuple[Batch, Input]:
    """Normalise, order bands by name, and name the input.

    Raises:
        BandError: no input has this rank and these bands.
        DataError: spacing comes in another unit than the input's.
    """
    entry = contract.input_for(len(batch.size), batch.bands)
    if batch.unit != entry.unit:
        raise DataError(
            f"input '{entry.name}': expected spacing in {entry.unit}, got {batch.unit}: "
            "declare the spacing of the files, or use an encoder trained without it."
        )
    return batch.aligned(entry.bands).normalised(), entry
