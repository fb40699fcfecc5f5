"""Facts of the retina: what the two kinds of image are, their value space, legal mirror images, and known label schemes."""

from __future__ import annotations

from core.bands import RGB
from core.contract import Input, Normalisation

# Mean and deviation of the content of colour fundus photographs, 0 to 1 per band: 65 photographs of IDRiD (CC BY 4.0).
# ImageNet's would put the blue band at -1.4 and give it a fifth of the contrast of the others.
FUNDUS = Normalisation(method="fixed", mean=(0.617, 0.299, 0.089), std=(0.160, 0.111, 0.081))
# OCT has no absolute scale: each volume is normalised by its own mean and deviation.
OCT = Normalisation(method="per_image")

# A left eye mirrored is a right eye; upside down, neither exists. B-scans may be read from either end and mirrored, but
# light always comes from above.
PHOTOGRAPH_FLIPS = (False, True)
VOLUME_FLIPS = (True, False, True)

# Label columns whose numbers are grades: from none to worst.
ORDINAL_LABELS = ("grade", "retinopathy_grade", "macular_edema_risk", "dr_grade", "diagnosis_grade")


def photograph(size: int, patch: int, whole: int) -> Input:
    """Describe colour fundus photographs: the disc is data, its black surround is not; no physical size is known.

    Whole photographs are seen about as large as training crops show their share, so that a lesion that was learnt in a
    crop is met again at the same scale.
    """
    return Input(
        name="photograph",
        bands=RGB,
        patch=(patch, patch),
        size=(size, size),
        whole_size=(whole, whole),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=FUNDUS,
        background="dark",
    )


def volume(size: tuple[int, int, int], patch: tuple[int, int, int]) -> Input:
    """Describe volumes (Z Y X) in mm; the nominal spacing is replaced by the median of the training volumes."""
    return Input(
        name="volume",
        bands=("intensity",),
        patch=patch,
        size=size,
        spacing=(1.0, 1.0, 1.0),
        unit="mm",
        normalisation=OCT,
    )
