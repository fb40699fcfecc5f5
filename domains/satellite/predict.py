"""Map whole scenes, larger than memory, with a fine-tuned model: georeferenced files that open in any GIS.

    python -m domains.satellite.predict --model runs/landcover --data scene.tif --out map.tif

The scene is read by overlapping windows, and the answers are blended where windows overlap. What is not measured in the scene
is nodata in the map; of several scenes, one without anything measured is told and gets a map of nodata, and a single one is
refused. A segmentation gives one class per pixel, with names and colours; --output=probabilities gives one band
per class. A model of whole scenes gives one answer per window: a coarser map of the same place. Where pixels have no size in
metres it has learnt whole scenes resized to what its encoder sees: a scene as large as those, or smaller, is resized alike
and gets one answer, and a larger one gets one for each window of the size of those (--window). A page shows scenes and maps,
and what area each class covers: NAME.report.html beside the map of a single scene, report.html beside those of several. The
memory that a run takes is said before it starts; --plan says it and stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from core.batch import Batch
from core.cli import Options, Verb, main
from core.config import to_dict
from core.contract import Input
from core.errors import ConfigError, DataError
from core.heads.load import Model, load_model
from core.inference import Scene, Windows, predict_windows
from core.preprocess import Window, is_native
from core.report.maps import PICTURED, Sheet
from datasets import LazyImage
from datasets.writers import writing
from domains.satellite.cluster import Part, on_cluster, parts_of
from domains.satellite.covering import Network, UnmeasuredError, arithmetic, covered, go_over, memory_text, silent
from domains.satellite.looking import blocks
from domains.satellite.outputs import refuse_existing, remove, targets
from domains.satellite.overlay import overlay_of, write_overlay
from domains.satellite.pages import outdated, page_of, sheet_of_map, write_page
from domains.satellite.products import Output, Product, product_of
from domains.satellite.scenes import ALIASES, ByBands, Reading, held, input_for, look, matched, open_scenes, scene_of
from domains.verbs.collection import say

_SIDE = 512  # pixels along an edge of what is written at once of a map of nodata


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Options of a prediction.

    Attributes:
        model: a run folder of `finetune`.
        reading: scenes, and how they are covered.
        output: of a model of classes: the likeliest `classes`, the default, or the `probabilities` of all.
        picture: draw classes per pixel over the middle of the scene, beside the map, as NAME.overlay.png.
        report: write a page of all scenes: pictures, what each class covers, what made the maps. It is called
            NAME.report.html beside the map of a single scene, report.html beside those of several.
        scheduler: predict on the workers of a running dask.distributed scheduler, such as tcp://host:8786; they need this
            checkout and the same paths (pip install 'halfseen[cluster]').
    """

    model: str = ""
    reading: Reading = Reading()
    output: Output | None = None
    picture: bool = True
    report: bool = True
    scheduler: str | None = None


def check_named(config: Predict) -> None:
    """Make sure that there is something to map, and with what.

    Raises:
        ConfigError: there is not.
    """
    if not config.model:
        raise ConfigError("expected --model, a run folder of `python -m domains.satellite.finetune`.")
    if not config.reading.data:
        raise ConfigError("expected --data, the scenes to read: files, folders, lists or manifests.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scene, all that decides its map, and where that goes."""

    image: LazyImage
    windows: Windows
    path: Path
    product: Product


def jobs(config: Predict, model: Model, out: Path) -> list[Job]:
    """Open every scene and decide what becomes of it.

    Raises:
        HalfseenError: a scene, an option or a name cannot be used; nothing was written.
    """
    if model.task == "cloud_mask" or model.ndim != 2:
        raise ConfigError(f"{config.model}: a model of '{model.task}' gives no map of a scene.")
    scenes = matched(open_scenes(config.reading), model.contract)
    found = []
    for (seen, entry), path in zip(scenes, targets([seen.image for seen, _ in scenes], out, ".tif"), strict=True):
        image = seen.image
        windows = windows_of(config, model, image, entry)
        product = product_of(model, config.output, image, windows, path)
        product.writer.check(path, product.facts)
        look(image, entry)
        found.append(Job(image=image, windows=windows, path=path, product=product))
    return found


def windows_of(config: Predict, model: Model, image: LazyImage, entry: Input) -> Windows:
    """Cover a scene as the model was trained: by windows of its size, or of the scenes that it has learnt as a whole.

    A head of whole scenes whose pixels have no size has seen each resized to one size, and stored how large the largest
    was: what is no larger is a whole scene here too, and larger ones are looked at by windows of that size, resized alike.

    Raises:
        ConfigError: `--window` or `--overlap` do not fit.
        DataError: a small scene is damaged.
    """
    reading, about = config.reading, model.about
    trained = tuple(about["window"]) if "window" in about else entry.size  # of the head, which may not be the encoder's
    resized = model.task != "segment" and not is_native(entry)
    usual = tuple(about["scene"]) if resized and "scene" in about else trained
    reading = replace(reading, window=reading.window or usual)
    windows = covered(reading, image, entry, 1 if model.task == "segment" else None, seen=trained)
    if resized and "scene" not in about and config.reading.window is None and not windows.single:
        say(
            f"{image.path.name}: {config.model} does not say how large the scenes were that it was trained on, and looks at "
            f"windows of {' x '.join(map(str, windows.window))} pixels; where they were larger, give their size by --window, "
            "or train it again."
        )
    return windows


def run(config: Predict, options: Options) -> Path:
    """Map every scene, and write the page that shows them; one without anything measured gets a map of nodata among others.

    Raises:
        DataError: a scene is damaged, or nothing is measured in any; those that are done by then have their maps.
    """
    device = config.reading.where()
    model = load_model(config.model, device=device)
    work = jobs(config, model, options.out)
    made = [job.path for job in work]
    page, old = [page_of(made)] if config.report else [], outdated(made)
    refuse_existing([*(path for job in work for path in written(config, job)), *page, *old], options)
    network = Network(module=model, ask=answers(model), values=len(model.classes))
    sheets: dict[int, Sheet] = {}
    unmeasured: dict[int, tuple[UnmeasuredError, float]] = {}

    def show(number: int, seconds: float) -> None:
        job = work[number]
        entry, legend = input_for(model.contract, job.image), job.product.legend
        if legend is not None and len(written(config, job)) > 1:
            say(f"picture: {write_overlay(job.image, entry, job.path, legend)}")
        if config.report:
            pictured = number < PICTURED
            sheets[number] = sheet_of_map(
                model, legend, job.image, entry, job.windows, job.path, seconds=seconds, pictured=pictured
            )

    for number, job in enumerate(work):
        say(_text(config, model, job, network))
        began = time.perf_counter()
        try:
            predict(config, model, job, overwrite=options.overwrite)
        except UnmeasuredError as error:
            unmeasured[number] = error, time.perf_counter() - began
        else:
            show(number, time.perf_counter() - began)
    if len(unmeasured) == len(work):
        first, _ = unmeasured[0]
        raise first if len(work) == 1 else DataError(f"in none of {len(work)} scenes is there anything to map: {first}")
    for number, (reason, seconds) in unmeasured.items():
        say(f"{reason} Its map is nodata everywhere.")
        write_nodata(work[number], len(model.classes), overwrite=options.overwrite)
        show(number, seconds)
    if config.report:
        say(f"report: {_page(config, model, work, [sheets[number] for number in range(len(work))])}")
    remove(set(old) - set(page))
    return work[0].path if len(work) == 1 else options.out


def _page(config: Predict, model: Model, work: list[Job], sheets: list[Sheet]) -> Path:
    first = work[0]
    about: dict[str, Any] = {
        "run": config.model,
        "task": model.task,
        "answers": model.classes,
        "head": to_dict(model.spec),
    }
    about |= {"trained from": model.about.get("finetuned_from"), "label": model.about.get("label")}
    about |= {"output": config.output or "classes"} if model.task != "regress" else {"units": model.units}
    return write_page(
        [job.path for job in work],
        sheets,
        title=f"{first.image.path.stem if len(work) == 1 else f'{len(work)} scenes'}, mapped by {Path(config.model).name}",
        what="numbers" if model.task == "regress" else "classes",
        about=about,
        reading=config.reading,
        entry=input_for(model.contract, first.image),
        windows=first.windows,
    )


def written(config: Predict, job: Job) -> list[Path]:
    """The files that a scene gives: its map, and the picture of classes per pixel."""
    drawn = config.picture and job.product.legend is not None and job.windows.cell == (1, 1)
    return [job.path, overlay_of(job.path)] if drawn else [job.path]


def predict(config: Predict, model: Model, job: Job, *, overwrite: bool) -> None:
    """Map one scene, here or on a cluster.

    Raises:
        DataError: the scene is damaged.
        UnmeasuredError: nothing in it is measured, and no map was written.
    """
    reading, product = config.reading, job.product
    scene = scene_of(job.image, input_for(model.contract, job.image))
    with writing(job.path, product.facts, writer=product.writer, overwrite=overwrite) as put:
        if config.scheduler is None or len(job.windows) == 1:  # which is not worth to be sent

            def write(window: Window, values: np.ndarray, valid: np.ndarray) -> None:
                put((window, product.convert(values, valid)))

            go_over(reading, job.image, scene, job.windows, answers(model), write, values=len(model.classes))
            return
        row_bytes = product.facts.shape[0] * product.facts.dtype.itemsize * job.windows.result[1]
        light = replace(scene, read=ByBands(job.image, scene.bands))  # without a scene that is held in memory
        work = partial(map_part, config, job.image, job.windows, job.path, light)
        seen = 0
        for part in on_cluster(config.scheduler, work, parts_of(job.windows, row_bytes), job.path.parent):
            window, voxels, count = part
            put((window, voxels))
            seen += count
        if not seen:
            raise silent(reading, job.image, scene, job.windows)


def write_nodata(job: Job, values: int, *, overwrite: bool) -> None:
    """Write the map of a scene of which nothing is measured; `values` is K of the model."""
    product = job.product
    with writing(job.path, product.facts, writer=product.writer, overwrite=overwrite) as put:
        for rows, columns in blocks(job.windows.result, _SIDE):
            shape = rows.stop - rows.start, columns.stop - columns.start
            put(((rows, columns), product.convert(np.zeros((values, *shape), np.float32), np.zeros(shape, bool))))


def map_part(config: Predict, image: LazyImage, whole: Windows, path: Path, scene: Scene, windows: Windows) -> Part:
    """Map some rows of a scene in a worker of a cluster, which keeps the model for the next part."""
    reading = config.reading
    model = _kept_model(config.model, str(reading.where()))
    product = product_of(model, config.output, image, whole, path)
    scene = replace(scene, read=ByBands(held(image), scene.bands))
    first, stop = windows.wanted
    voxels = np.empty((product.facts.shape[0], stop - first, windows.result[1]), dtype=product.facts.dtype)

    def write(window: Window, values: np.ndarray, valid: np.ndarray) -> None:
        rows, columns = window
        voxels[:, rows.start - first : rows.stop - first, columns] = product.convert(values, valid)

    seen = predict_windows(
        arithmetic(reading, answers(model)),
        scene,
        windows,
        write,
        values=len(model.classes),
        batch_size=reading.batch_size,
        device=reading.where(),
        readers=reading.readers,
        measured=reading.measured,
    )
    return (slice(first, stop), slice(0, windows.result[1])), voxels, seen


@lru_cache(maxsize=1)
def _kept_model(run: str, device: str) -> Model:
    return load_model(run, device=device)


def answers(model: Model) -> Callable[[Batch], Tensor]:
    """Give what is asked of each batch, (B, K, Y, X): probabilities, which may be averaged as logits may not, or numbers."""

    def ask(batch: Batch) -> Tensor:
        found = model.probabilities(batch)
        return found if found.ndim == 4 else found[:, :, None, None]

    return ask


def plan(config: Predict) -> str:
    """Say how much there is to do and what it will hold, scene by scene."""
    check_named(config)
    model = load_model(config.model, device=config.reading.where())
    network = Network(module=model, ask=answers(model), values=len(model.classes))
    return "\n".join(_text(config, model, job, network) for job in jobs(config, model, default_out(config)))


def default_out(config: Predict) -> Path:
    """Maps beside the model."""
    return Path(config.model) / "maps"


def _text(config: Predict, model: Model, job: Job, network: Network) -> str:
    return memory_text(job.windows, input_for(model.contract, job.image), job.image, config.reading, network)


if __name__ == "__main__":
    main(
        Verb(
            config=Predict,
            run=run,
            description=__doc__ or "",
            default_out=default_out,
            aliases=ALIASES,
            plan=plan,
            check=lambda config, _: check_named(config),
        )
    )
