"""Draw the gallery: every masker and every target of the folders on four synthetic images.

    python docs/make_gallery.py

Writes docs/gallery.md and docs/gallery/*.jpg. The images are drawn by `datasets.synthetic`, so no licence applies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from core import registry, viz  # noqa: E402
from core.batch import Batch, valid_tokens  # noqa: E402
from core.contract import Input, Normalisation  # noqa: E402
from core.maskers.base import Masker  # noqa: E402
from core.plan import Guide  # noqa: E402
from core.preprocess import prepare  # noqa: E402
from core.recipes._facts import list_recipes  # noqa: E402
from core.rng import key, numpy_rng  # noqa: E402
from core.targets.base import Target  # noqa: E402
from datasets.synthetic import ct, fundus, scene, slide  # noqa: E402

TILE = 192  # pixels of one picture
NAMES = {"fundus": "fundus photograph", "ct": "CT slice", "tissue": "H&E tile", "land": "satellite tile"}


def inputs() -> dict[str, tuple[Input, np.ndarray, tuple[float, ...]]]:
    """Give input, raw image (C, *S) and spacing of each picture."""
    photograph = fundus.photograph(numpy_rng("gallery", "fundus"), 3, right_eye=True).transpose(2, 0, 1)
    phantom = ct.volume(numpy_rng("gallery", "patient"), numpy_rng("gallery", "scan"), 2, (32, 128, 128))
    tissue = slide.slide(numpy_rng("gallery", "slide"), 2, (512, 512)).pixels.transpose(2, 0, 1)[:, 128:384, 128:384]
    land = scene.scene(numpy_rng("gallery", "scene", 3), "crop", size=(192, 192))
    own = Normalisation(method="per_image")
    colour = {"bands": ("red", "green", "blue"), "unit": "px", "spacing": (1.0, 1.0), "normalisation": own}
    flat = {"size": (192, 192), "patch": (16, 16)}
    sentinel = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir1", "B12": "swir2"}
    picked = [list(land.bands).index(name) for name in sentinel]
    measured = np.where(land.raw[picked] == land.nodata, np.nan, land.raw[picked] * np.float32(1e-4))
    return {
        "fundus": (Input(name="fundus", background="dark", **colour, **flat), photograph, (1.0, 1.0)),
        "ct": (
            Input(
                name="ct",
                bands=("intensity",),
                size=(32, 128, 128),
                patch=(4, 8, 8),
                unit="mm",
                spacing=phantom.spacing_mm,
                normalisation=own,
            ),
            phantom.voxels[None].astype(np.float32),
            phantom.spacing_mm,
        ),
        "tissue": (Input(name="tissue", **colour, **flat), tissue, (1.0, 1.0)),
        "land": (
            Input(
                name="land",
                bands=tuple(sentinel.values()),
                unit="m",
                spacing=(10.0, 10.0),
                # Reflectance as it is, so that indices of bands keep their meaning.
                normalisation=Normalisation(method="fixed", mean=(0.0,) * 6, std=(1.0,) * 6),
                **flat,
            ),
            measured.astype(np.float32),
            (10.0, 10.0),
        ),
    }


def batch_of(entry: Input, image: np.ndarray, spacing: tuple[float, ...]) -> Batch:
    """Prepare one image as an encoder would see it."""
    ready = prepare(image, entry.bands, entry)
    one = torch.zeros(1, dtype=torch.int64)
    batch = Batch(
        image=torch.from_numpy(ready.image)[None],
        valid=torch.from_numpy(ready.valid)[None],
        bands=entry.bands,
        spacing=torch.tensor([spacing]),
        unit=entry.unit,
        offset=torch.from_numpy(ready.offset)[None],
        scale=torch.from_numpy(ready.scale)[None],
        key=one + key("gallery", entry.name),
        index=one,
        row=one,
        prior=_bright(torch.from_numpy(ready.image)[None]),
    )
    return batch.normalised()


def _bright(image: Tensor) -> Tensor:
    """Stand in for knowledge of the anatomy: the brighter, the more important, 0 to 1."""
    mean = image.mean(dim=1, keepdim=True)
    return (mean - mean.amin()) / (mean.amax() - mean.amin())


def flat(image: Tensor) -> Tensor:
    """Give an image (C, *S) as 2D: a volume's middle slice, the front of the body up."""
    return image if image.ndim == 3 else image[:, image.shape[1] // 2].flip(1)


def tile(image: Tensor, entry: Input, valid: Tensor | None = None) -> np.ndarray:
    """Draw an image (C, *S), bands by name; what is not valid is black."""
    plane = flat(image if valid is None else image.masked_fill(~valid, torch.nan))
    clouds = (1.0, 95.0) if entry.unit == "m" else (0.5, 99.5)  # white clouds would leave the ground black
    window = viz.stretch(plane, torch.isfinite(plane), percent=clouds)
    return viz.to_rgb(plane, entry.bands if len(plane) == len(entry.bands) else ("grey",) * len(plane), window)


def sheet(tiles: list[np.ndarray]) -> Image.Image:
    """Put pictures side by side."""
    page = Image.new("RGB", (len(tiles) * (TILE + 6) - 6, TILE), "white")
    for number, pixels in enumerate(tiles):
        page.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.NEAREST), (number * (TILE + 6), 0))
    return page


def masked(masker: Masker, batch: Batch, entry: Input) -> np.ndarray:
    """Draw what a masker hides; one that needs a hint is given the image's own contrast as if a network had said so."""
    grid = entry.grid(batch.size)
    energy = batch.image.square().mean(1, keepdim=True)
    hint = torch.nn.functional.avg_pool3d(energy, grid.patch) if grid.ndim == 3 else None
    hint = torch.nn.functional.avg_pool2d(energy, grid.patch) if hint is None else hint
    guide = Guide(hint=hint.flatten(1).repeat(1, grid.num_groups), progress=torch.ones(()))
    plan = masker(batch, grid, batch.rng, guide)
    if plan.voxels is not None:
        hidden = flat(plan.voxels[0])[0]
    else:
        tokens = plan.hide[0].reshape(grid.num_groups, *grid.tokens)[0]
        hidden = flat(viz.to_voxels(tokens, grid.patch)[None])[0]
    return viz.hatch(tile(batch.image[0], entry, batch.valid[0]), hidden.numpy())


def maskers(pictures: dict[str, tuple[Input, Batch]]) -> Iterator[tuple[str, str, Path]]:
    """Draw every masker; gives name, what it says of itself, and its sheet."""
    for name in registry.names("maskers"):
        part = registry.get("maskers", name)
        drawn = []
        for entry, batch in pictures.values():
            if name == "bands":
                cut = max(len(entry.bands) // 2, 1)
                entry = replace(entry, groups=tuple(g for g in (entry.bands[:cut], entry.bands[cut:]) if g))
            drawn.append(masked(part(), batch, entry))
        yield name, _first_line(part), _save(sheet(drawn), f"masker_{name}")


def targets(pictures: dict[str, tuple[Input, Batch]]) -> Iterator[tuple[str, str, Path | None]]:
    """Draw every target that can be drawn beside its image."""
    for name in registry.names("targets"):
        part = registry.get("targets", name)
        try:
            target: Target = part()
        except TypeError:  # it needs something learnt, such as a codebook
            yield name, _first_line(part), None
            continue
        drawn: list[np.ndarray] = []
        for entry, batch in pictures.values():
            grid = entry.grid(batch.size)
            try:
                target.num_values(entry)
                value, _ = target(batch, grid)
                image = target.picture(value, batch, grid)
            except ValueError:  # such as an index whose bands this image lacks
                continue
            if image is not None:
                drawn += [tile(batch.image[0], entry, batch.valid[0]), tile(torch.nan_to_num(image[0]), entry)]
        yield name, _first_line(part), _save(sheet(drawn), f"target_{name}") if drawn else None


def _first_line(part: type) -> str:
    return (part.__doc__ or "").strip().partition("\n")[0]


def _save(page: Image.Image, stem: str) -> Path:
    path = HERE / "gallery" / f"{stem}.jpg"
    path.parent.mkdir(exist_ok=True)
    page.save(path, quality=88, optimize=True)
    return path


def main() -> None:
    """Draw everything and write the page."""
    pictures = {}
    for name, (entry, image, spacing) in inputs().items():
        batch = batch_of(entry, image, spacing)
        assert bool(valid_tokens(batch, entry.grid(batch.size)).any())
        pictures[name] = entry, batch
    lines = [
        "# Gallery",
        "",
        "Drawn by `python docs/make_gallery.py` on synthetic images: " + ", ".join(NAMES.values()) + ".",
        "Parts have their defaults; hatched = hidden. Of volumes the middle slice is shown.",
        "",
        "## Recipes",
        "",
        list_recipes().to_markdown(),
        "## Maskers",
        "",
        "A masker that needs a network's hint is shown with the image's contrast in its place.",
    ]
    for name, says, path in maskers(pictures):
        lines += ["", f"### {name}", "", says, "", f"![{name}](gallery/{path.name})"]
    lines += ["", "## Targets", "", "Each image, and beside it what is to be predicted."]
    for name, says, drawn in targets(pictures):
        lines += ["", f"### {name}", "", says]
        lines += ["", f"![{name}](gallery/{drawn.name})" if drawn else "Numbers, not an image."]
    (HERE / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(HERE / "gallery.md")


if __name__ == "__main__":
    main()
