"""The report shows the run's own numbers, is whole in one file, and survives whatever a run folder looks like."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from safetensors.numpy import save_file

from core import viz
from core.errors import ConfigError, MissingDataError, RunFolderError
from core.evaluate.table import Difference, LabelClass, Row, Table
from core.report import style, write_report
from core.report.charts import (
    Curve,
    line_chart,
    log_ticks,
    show,
    smooth,
    thin,
    tick_text,
    tick_texts,
    ticks,
    whisker,
    whisker_axis,
)
from core.report.read import read_run
from core.report.words import headline, verdict

CONFIG = """
recipe: {kind: mae, encoder: {kind: vit, width: 192, depth: 12}, masker: {kind: random, ratio: 0.75}}
data: {paths: [../shared/fundus], held_out: 0.1, streams: [{input: photograph, batch_size: 16}]}
optim: {lr: 0.0015, betas: [0.9, 0.95]}
steps: 40
seed: 3
"""


def step(at: int, loss: float, **fields: Any) -> dict[str, Any]:
    base = {"event": "step", "step": at, "stream": "photograph", "loss": loss, "terms": {"image": loss}, "lr": 1e-3}
    return base | {"grad_norm": 1.0, "samples_per_s": 32.0, "data_wait_s": 0.1, "step_s": 0.5} | fields


def validation(at: int, loss: float, **fields: Any) -> dict[str, Any]:
    return {"event": "validation", "step": at, "stream": "photograph", "loss": loss, "terms": {"image": loss}} | fields


def curve(steps: int = 40) -> list[dict[str, Any]]:
    events = [{"event": "start", "step": 0, "run_id": "abc123"}, validation(0, 1.25)]
    events += [step(t, 1.2 - 0.01 * t) for t in range(1, steps + 1)]
    return [*events, validation(steps, 0.75), {"event": "end", "step": steps}]


def make(folder: Path, events: list[dict[str, Any]] | None = None, *, config: str = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    lines = [json.dumps(event) + "\n" for event in (curve() if events is None else events)]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def page(run: Path, **options: Any) -> str:
    return write_report(run, **options).read_text(encoding="utf-8")


def text(html: str) -> str:
    """Strip the markup: what a reader sees, spaces folded."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def table(**changes: Any) -> Table:
    values = {"encoder": 0.731, "random weights": 0.614, "pixel statistics": 0.702}
    rows = [
        Row(features=f, method="k-NN", metric="AUROC", value=v, low=v - 0.05, high=v + 0.04) for f, v in values.items()
    ]
    gain = {"features": "encoder", "method": "k-NN", "metric": "AUROC"}
    differences = (
        Difference(**gain, baseline="random weights", value=0.117, low=0.03, high=0.2),
        Difference(**gain, baseline="pixel statistics", value=0.029, low=-0.02, high=0.08),
    )
    options: dict[str, Any] = {
        "rows": tuple(rows),
        "differences": differences,
        "chance": {"AUROC": 0.5},
        "classes": (LabelClass(name="0", images=30, groups=20),),
        "images": 60,
        "groups": 40,
        "folds": 5,
        "repeats": 1,
        "draws": 1000,
        "level": 0.95,
        "seed": 0,
    }
    return Table(**(options | changes))


class Watcher(HTMLParser):
    """Collects tags, every attribute that makes a browser fetch, and whether tags are closed in order."""

    VOID = frozenset({"meta", "img", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.mistakes: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [
            value or "" for name, value in attributes if name in {"src", "href", "srcset", "data", "action"}
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)


def watch(html: str) -> Watcher:
    watcher = Watcher()
    watcher.feed(html)
    return watcher


def full(folder: Path) -> Path:
    """Make a run with every part that a report can show."""
    make(folder)
    (folder / "env.json").write_text(json.dumps({"packages": {"torch": "2.14.0"}, "commit": "9f3c1e7"}))
    (folder / "evaluation.json").write_text(table().to_json())
    frame = {"group": ["a", "a", "b", "c"], "split": ["train", "train", "held_out", "train"], "ndim": [2, 2, 2, 3]}
    parquet.write_table(pa.table(frame | {"bytes": [1_000_000] * 4}), folder / "data.parquet")
    (folder / "encoder").mkdir(exist_ok=True)
    save_file(
        {"w": np.zeros((30, 40), np.float32), "b": np.zeros(34, np.float32)}, folder / "encoder/model.safetensors"
    )
    figures = folder / "figures"
    viz.save_png(figures / "panel_photograph_00_original.png", np.zeros((4, 4, 3), np.uint8))
    viz.save_png(figures / "token_pca.png", np.full((3, 3, 3), 9, np.uint8))
    column = {"name": "original", "heading": "Original", "file": "panel_photograph_00_original.png"}
    column |= {"width": 4, "height": 4}
    row = {"input": "photograph", "shown": ["red", "green", "blue"], "volume": False, "columns": [column]}
    (figures / "panels.json").write_text(json.dumps({"step": 40, "rows": [row]}))
    return folder


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    html = page(full(tmp_path / "run"))
    seen = watch(html)
    assert seen.sources
    assert all(source.startswith("data:image/png;base64,") for source in seen.sources)
    assert not seen.tags & {"link", "script", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html


def test_the_page_is_well_formed(tmp_path: Path) -> None:
    seen = watch(page(full(tmp_path / "run")))
    assert seen.mistakes == []
    assert seen.open == []


def test_the_headline_and_the_facts_are_the_runs_own(tmp_path: Path) -> None:
    said = text(page(full(tmp_path / "run"), title="Retina, preset tiny", command=["python", "-m", "x", "a b"]))
    assert "Validation loss fell from 1.25 to 0.75 over 40 steps (40.0 %)." in said
    assert "Step 40 of 40, finished." in said
    for fact in (
        "Retina, preset tiny",
        "recipe mae",
        "encoder vit; width 192; depth 12",
        "masker random; ratio 0.75",
        "encoder size 1,234 stored values",
        "lr 0.0015",
        "photographs 3",
        "volumes 1",
        "groups 3",
        "held out 1 image in 1 group, 25 % of the images",
        "packages torch 2.14.0",
        "commit 9f3c1e7",
        "run id abc123",
        "python -m x 'a b'",
        "20 % waiting for data",
        "Held-out images at step 40",
    ):
        assert fact in said, fact


def test_pictures_are_carried_whole(tmp_path: Path) -> None:
    run = full(tmp_path / "run")
    carried = [base64.b64decode(source.partition(",")[2]) for source in watch(page(run)).sources]
    assert sorted(carried) == sorted(p.read_bytes() for p in (run / "figures").glob("*.png"))


def test_scores_stand_beside_both_baselines_with_intervals(tmp_path: Path) -> None:
    html = page(full(tmp_path / "run"))
    said = text(html)
    for line in ("encoder 0.731 [0.681, 0.771]", "random weights 0.614 [0.564, 0.654]", "pixel statistics 0.702"):
        assert line in said
    assert "random weights +0.117 [+0.030, +0.200]" in said
    assert "Encoder against random weights: better on 1 of 1 scores." in said
    assert "Encoder against pixel statistics: undecided on 1 of 1 scores." in said
    assert html.count('class="whisker"') == 5


def test_panels_without_a_prediction_are_not_called_reconstructions(tmp_path: Path) -> None:
    run = full(tmp_path / "run")
    index = run / "figures" / "panels.json"
    said = text(page(run))
    assert "What was hidden" in said
    assert "The recipe predicts features, not images, so there is no prediction to look at." in said
    assert "seams show where the prediction is off" not in said
    panels = json.loads(index.read_text())
    panels["rows"][0]["columns"].append(panels["rows"][0]["columns"][0] | {"name": "image"})
    index.write_text(json.dumps(panels))
    said = text(page(run))
    assert "Reconstructions" in said
    assert "predicts features" not in said
    assert "seams show where the prediction is off" in said


def test_the_dot_lies_at_its_value_and_the_whisker_spans_its_interval() -> None:
    drawn = whisker(0.6, 0.5, 0.9, axis=(0.0, 1.0), mark=0.2, tone=1)
    assert 'cx="60.00%"' in drawn
    assert 'x1="50.00%" x2="90.00%"' in drawn
    assert 'x1="20.00%" x2="20.00%"' in drawn


def test_an_undefined_score_is_said_and_not_drawn(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    lost = Row(features="encoder", method="k-NN", metric="AUROC", value=math.nan, low=math.nan, high=math.nan)
    (run / "evaluation.json").write_text(table(rows=(lost,), differences=()).to_json())
    html = page(run)
    assert "encoder not defined" in text(html)
    assert "[" not in re.findall(r'class="value">(.*?)</td>', html)[0]
    assert "nan" not in html.lower().replace("nanometre", "")


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ([], "No validation loss was measured yet."),
        ([validation(0, 0.5)], "Validation loss was measured once: 0.5 at step 0."),
        ([validation(0, 0.5), validation(9, 0.6)], "did not fall: it rose from 0.5 to 0.6 over 9 steps (20.0 %)."),
        ([validation(5, 0.5), validation(9, 0.4)], "fell from 0.5 to 0.4 between step 5 and step 9 (20.0 %)."),
        ([validation(0, 0.5), validation(9, 0.5)], "did not fall: 0.5 at step 0 and at step 9."),
        ([validation(0, 1.0), validation(4, 0.2), validation(9, 0.5)], "Its lowest value was 0.2, at step 4."),
        ([validation(0, 1.0), validation(9, math.nan)], "is not finite at step 9."),
        ([validation(0, 1.0), validation(9, math.inf)], "is not finite at step 9."),
    ],
)
def test_the_headline_says_no_more_than_was_measured(
    tmp_path: Path, events: list[dict[str, Any]], sentence: str
) -> None:
    run = make(tmp_path / "run", events)
    assert sentence in " ".join(headline(read_run(run)))
    assert sentence in text(page(run))


def test_streams_have_sentences_and_panels_of_their_own(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    for t in range(1, 5):
        events += [step(2 * t - 1, 1 / t, terms={"image": 0.6 / t, "gradient": 0.4 / t})]
        events += [step(2 * t, 2 / t, stream="volume", terms={"image": 1.2 / t, "gradient": 0.8 / t})]
    events += [validation(t, 3 - t / 4, stream=s) for t in (0, 8) for s in ("photograph", "volume")]
    html = page(make(tmp_path / "run", events))
    said = text(html)
    for heading in (
        "Photograph: loss",
        "Photograph: image",
        "Photograph: gradient",
        "Volume: loss",
        "Volume: gradient",
    ):
        assert f"<h3>{heading}</h3>" in html
    assert "Photograph validation loss fell from 3 to 1 over 8 steps" in said
    assert "Volume validation loss fell from 3 to 1 over 8 steps" in said


def test_a_term_that_is_the_loss_is_drawn_once(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run"))
    assert "<h3>Photograph: loss</h3>" in html
    assert "<h3>Photograph: image</h3>" not in html


def test_a_resume_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    lost = [step(t, 9.0) for t in range(1, 8)]
    again = [{"event": "resume", "step": 4}, step(5, 5.0), step(6, 6.0)]
    run = read_run(make(tmp_path / "run", [*lost, validation(6, 9.0), *again]))
    assert [(e["step"], e["loss"]) for e in run.steps] == [(1, 9), (2, 9), (3, 9), (4, 9), (5, 5), (6, 6)]
    assert run.validations == ()
    assert (run.resumes, run.ended) == (1, False)
    just_resumed = read_run(make(tmp_path / "run", [*lost, again[0]]))
    assert just_resumed.last_step == 4


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "step", "st')
    assert len(read_run(run).steps) == 40
    assert "metrics.jsonl: 1 line(s) could not be read" in text(page(run))


def test_values_that_are_not_finite_break_the_line_and_are_counted(tmp_path: Path) -> None:
    losses = [1.0, math.nan, 0.8, None, 0.6]
    html = page(make(tmp_path / "run", [step(t, loss) for t, loss in enumerate(losses, start=1)]))  # type: ignore[arg-type]
    assert "2 value(s) that are not finite are left out." in text(html)
    assert "nan" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL).lower()


def test_a_chart_puts_points_where_their_values_are() -> None:
    chart = line_chart([Curve("a", [(0, 0.0), (50, 1.0), (100, 0.0)], 1)], label="a", from_zero=True)
    found = re.search(r'd="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', chart)
    assert found is not None
    x0, y0, x1, y1, x2, y2 = map(float, found.groups())
    assert (x0, x2, y0) == (48, 344, y2)
    assert x1 == (x0 + x2) / 2
    assert y1 < y0


def test_hover_texts_tell_the_values(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run", [step(1, 0.5), step(2, 0.25), validation(2, 0.125)]))
    assert "step 2\ntrain: 0.25\nvalidation, fixed masks: 0.125" in html


def test_a_gap_breaks_the_line_and_a_lone_point_is_a_dot() -> None:
    chart = line_chart([Curve("a", [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.5)], 1)], label="a")
    assert chart.count("M") == 2
    assert chart.count("<circle") == 1


def test_smoothing_ignores_gaps_and_keeps_constants() -> None:
    mean, window = smooth([(t, math.nan if t == 50 else 2.0) for t in range(100)])
    assert window == 5
    assert [y for _, y in mean] == [2.0] * 100


def test_thinning_keeps_every_spike() -> None:
    points = [(float(t), 1.0) for t in range(100_000)]
    points[77_777] = (77_777.0, 50.0)
    points[12_345] = (12_345.0, math.nan)
    kept = thin(points)
    assert len(kept) <= 401
    assert (77_777.0, 50.0) in kept
    assert any(math.isnan(y) for _, y in kept)
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.31, 0.46) == [0.35, 0.4, 0.45]
    assert ticks(2.0, 2.0) == [2.0]
    assert log_ticks(0.9, 11) == [1, 2, 5, 10]
    assert log_ticks(1e-4, 1e2) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 100])
    assert [tick_text(v) for v in (0, 0.5, 5000, 12_000, 2e6, 5e-4)] == ["0", "0.5", "5000", "12k", "2M", "0.0005"]


def test_labels_of_one_axis_are_written_alike() -> None:
    assert tick_texts([0, 5e-5, 1e-4, 1.5e-4]) == ["0", "5e-5", "1e-4", "1.5e-4"]
    assert tick_texts([0, 5e-4, 1e-3, 1.5e-3]) == ["0", "0.0005", "0.001", "0.0015"]
    assert tick_texts([-2e-6, 0, 2e-6]) == ["-2e-6", "0", "2e-6"]
    assert tick_texts([0, 12_500, 25_000]) == ["0", "12.5k", "25k"]
    assert tick_texts([]) == []


def test_numbers_for_people() -> None:
    assert [show(v) for v in (0.45567, 1234.5, 2e-5, 0.0, math.nan)] == [
        "0.4557",
        "1,234",
        "2.00e-05",
        "0",
        "not finite",
    ]


def test_strings_from_outside_stay_text(tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>&\"'"
    config = CONFIG.replace("../shared/fundus", json.dumps(nasty))
    run = make(tmp_path / "run", [step(1, 1.0, stream=nasty), validation(1, 1.0, stream=nasty)], config=config)
    (run / "env.json").write_text(json.dumps({nasty: nasty}))
    rows = tuple(Row(features=nasty, method=nasty, metric="AUROC", value=0.5, low=0.4, high=0.6) for _ in range(1))
    (run / "evaluation.json").write_text(table(rows=rows, differences=(), notes=(nasty,)).to_json())
    (run / "figures").mkdir()
    column = {"heading": nasty, "file": "../../secret.png", "width": nasty, "height": None}
    panels = {"rows": [{"input": nasty, "shown": [nasty], "columns": [column]}]}
    (run / "figures/panels.json").write_text(json.dumps(panels))
    html = page(run, title=nasty, notes=[nasty], warnings=[nasty], command=nasty)
    seen = watch(html)
    assert "img" not in seen.tags
    assert seen.mistakes == []
    assert html.count("onerror") == html.count("&lt;img src=x onerror=alert(1)&gt;") > 8
    assert "secret.png is missing" in text(html)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_very_short_runs_have_a_report(tmp_path: Path, steps: int) -> None:
    events = [{"event": "start", "step": 0}, *(step(t, 1.0 / t) for t in range(1, steps + 1))]
    html = page(make(tmp_path / "run", events))
    assert watch(html).mistakes == []
    assert ("No step was logged yet." in text(html)) == (steps == 0)
    assert (f"Step {steps} of 40, not finished." in text(html)) == (steps > 0)


def test_a_bare_folder_says_what_is_not_there_yet(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}")
    said = text(page(run))
    for line in ("No loss was logged yet", "No panels were drawn yet", "Not evaluated yet", "not recorded"):
        assert line in said


@pytest.mark.parametrize(
    "name", ["env.json", "evaluation.json", "data.parquet", "encoder/model.safetensors", "figures/panels.json"]
)
def test_a_damaged_side_file_is_named_and_the_rest_is_shown(tmp_path: Path, name: str) -> None:
    run = full(tmp_path / "run")
    (run / name).write_bytes(b'\xff\xfe{"torn')
    said = text(page(run))
    assert Path(name).name in said.partition("What ran")[0]
    assert "Validation loss fell from 1.25 to 0.75" in said


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="expected a run folder"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


def test_facts_look_unlike_warnings(tmp_path: Path) -> None:
    run = make(tmp_path / "run", [*curve(), None])  # type: ignore[list-item]
    html = page(run, notes=["64 scenes in 64 groups."], warnings=["The images are drawn."])
    assert '<p class="note">64 scenes in 64 groups.</p>' in html
    assert '<p class="warning"><b>Caution:</b> The images are drawn.</p>' in html
    assert '<p class="warning"><b>Caution:</b> metrics.jsonl: 1 line(s) could not be read' in html
    again = page(run)
    assert again == html, "a later report keeps both"


def test_a_later_report_keeps_title_notes_and_command(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    page(run, title="Retina, preset tiny", notes=["The images are synthetic."], command="make pretrain")
    said = text(page(run))
    for kept in ("Retina, preset tiny", "The images are synthetic.", "make pretrain"):
        assert kept in said
    assert "The images are synthetic." not in text(page(run, notes=[]))


def test_writing_again_replaces_the_page_as_a_whole(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    first = page(run)
    assert page(run) == first
    assert sorted(p.name for p in run.iterdir()) == ["config.yaml", "figures", "metrics.jsonl", "report.html"]


def test_names_beyond_ascii_arrive(tmp_path: Path) -> None:
    run = make(tmp_path / "Läufe" / "网膜 1", config=CONFIG.replace("../shared/fundus", "../données/眼底"))
    said = text(page(run))
    assert "../ données/ 眼底" in said
    assert "网膜 1" in said


def test_verdict_counts_worse_scores_too() -> None:
    worse = Difference(features="a", baseline="b", method="m", metric="x", value=-0.2, low=-0.3, high=-0.1)
    assert verdict(table(differences=(worse,)))[0] == "A against b: worse on 1 of 1 scores."


def test_a_long_run_stays_a_small_page(tmp_path: Path) -> None:
    html = page(make(tmp_path / "run", curve(20_000), config=CONFIG.replace("steps: 40", "steps: 20000")))
    assert len(html) < 300_000


@pytest.mark.parametrize("rows", [[1], {"a": 1}, None, [{"columns": [3]}], [{"columns": None}], "rows"])
def test_an_index_of_panels_that_is_none_is_told_or_empty(tmp_path: Path, rows: Any) -> None:
    run = full(tmp_path / "run")
    (run / "figures/panels.json").write_text(json.dumps({"step": 40, "rows": rows}))
    said = text(page(run))
    told = "panels.json does not hold rows of pictures" in said
    assert told == (rows != [{"columns": None}])
    assert "Validation loss fell from 1.25 to 0.75" in said


def test_what_is_called_a_picture_and_is_none_is_left_out(tmp_path: Path) -> None:
    run = full(tmp_path / "run")
    (run / "figures/folder.png").mkdir()
    (run / "figures/gone.png").symlink_to("nowhere.png")
    assert len(watch(page(run)).sources) == 2


def test_a_manifest_with_unknown_sizes_is_counted(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    frame = {"group": ["a", "b"], "split": ["train", "held_out"], "ndim": [2, 2], "bytes": [3_000_000, None]}
    parquet.write_table(pa.table(frame), run / "data.parquet")
    assert "on disk 3.0 MB" in text(page(run))


def test_a_page_that_cannot_be_written_is_an_error_of_the_run_folder(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "figures").write_text("")
    with pytest.raises(RunFolderError, match=r"figures: expected a folder"):
        write_report(run)


def test_names_that_are_no_text_are_shown_by_their_numbers(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    said = text(page(run, title="caf\udce9", notes=["k\udcff.tif"]))
    assert "caf\\udce9" in said
    assert "k\\udcff.tif" in text(page(run)), "and again from what was kept"


def test_a_spike_is_no_longer_felt_when_it_has_passed() -> None:
    points = [(float(t), 1e25 if t == 10 else 0.5) for t in range(100)]
    mean, window = smooth(points)
    assert window == 5
    assert [y for x, y in mean if abs(x - 10) > 2] == [0.5] * 95
    assert len(smooth([(float(t), 1.0) for t in range(100_000)])[0]) == 2000


def test_options_of_a_stream_are_words_and_no_code(tmp_path: Path) -> None:
    config = CONFIG.replace("batch_size: 16}", "batch_size: 16, tiles: {per_image: 1, plan: free}}")
    assert "batch size 16; tiles (per image 1; plan free)" in text(page(make(tmp_path / "run", config=config)))


def test_an_option_without_a_value_is_left_out(tmp_path: Path) -> None:
    config = CONFIG.replace("kind: vit, width", "kind: vit, sensor: '', note: [], width").replace("seed: 3", "seed: ''")
    said = text(page(make(tmp_path / "run", config=config)))
    assert "encoder vit; width 192; depth 12" in said
    assert "sensor" not in said.partition("Full configuration")[0]
    assert "steps 40 lr 0.0015" in said


def test_tables_of_scores_have_heads_for_those_who_do_not_see_them(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "evaluation.json").write_text(table().to_json())
    html = page(run)
    heads = [re.findall(r'scope="col">([^<]*)<', found) for found in re.findall("<table>(.*?)</table>", html)]
    assert heads and all(head == ["name", "drawn", "score and interval"] for head in heads)
    assert html.count('scope="row" class="name') == len(table().rows) + len(table().differences)
    assert html.count('scope="rowgroup"') == 2


def test_sizes_are_told_from_lists(tmp_path: Path) -> None:
    config = CONFIG.replace("kind: vit, width", "kind: swinv2, depths: [2, 2, 4], window: [8, 8], width")
    said = text(page(make(tmp_path / "run", config=config)))
    assert "encoder swinv2; depths 2, 2, 4; window 8 × 8; width 192" in said
    values = (
        "mean: [0.5, 0.5, 0.5, 0.5], clip: [[0, 1], [0, 1], [0, 1], [0, 1]], std: [1, 2, 1, 2], low: [[0, 1], [0, 2]]"
    )
    said = text(page(make(tmp_path / "run", config=CONFIG.replace("kind: vit, width", f"kind: vit, {values}, width"))))
    assert "vit; mean 0.5, 4 times; clip (0, 1), 4 times; std 1, 2, 1, 2; low (0, 1), (0, 2); width" in said


def test_a_term_of_half_a_scale_is_called_so(tmp_path: Path) -> None:
    events = [step(1, 1.0, terms={"scale_0_5": 0.5, "hog_9_bins": 0.5})]
    said = text(page(make(tmp_path / "run", events)))
    assert ": scale 0.5 " in said and ": HOG 9 bins " in said


def test_many_pictures_of_a_row_take_several_lines_and_keep_their_captions(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    pixels = np.zeros((4, 4, 3), np.uint8)
    for count, markup in ((7, 'class="panel" style="--n:7"'), (11, 'class="panel many" style="--n:7"')):
        columns = tuple(viz.Column(f"c{n}", f"Column {n}", pixels) for n in range(count))
        viz.save_rows(run / "figures", [viz.Row("scene", ("red",), columns)] * 2)
        assert page(run).count(markup) == 2
    assert ".panel+.panel:not(.many) figcaption{display:none}" in page(run)


def test_ticks_of_tiny_values_differ() -> None:
    assert ticks(0.0, 4e-14) == pytest.approx([0, 1e-14, 2e-14, 3e-14, 4e-14])


def labels_of(axis: tuple[float, float]) -> list[float]:
    return [float(label) for label in re.findall(r">([^<>]+)</text>", whisker_axis(axis))]


def test_labels_of_an_axis_do_not_run_into_each_other() -> None:
    assert labels_of((-0.068, 0.049)) == [-0.05, 0], "six labels from -0.06 to 0.04 would"
    assert labels_of((-0.23, 0.88)) == [0, 0.5]
    assert labels_of((0.08, 0.98)) == [0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("axis", [(0.08, 0.98), (0.0, 1.0), (0.32, 0.68), (-0.08, 1.08), (12.1, 12.9), (-3.0, 5.0)])
def test_an_axis_of_whiskers_has_three_labels_at_least(axis: tuple[float, float]) -> None:
    labels = labels_of(axis)
    assert 3 <= len(labels) <= 5
    assert axis[0] <= labels[0] < labels[1] < labels[2] <= axis[1]
    assert len({f"{b - a:.6g}" for a, b in itertools.pairwise(labels)}) == 1, "they are evenly apart"


@pytest.mark.parametrize(("steps", "drawn"), [(20, False), (100, True)])
def test_single_steps_are_in_the_legend_where_they_are_drawn(tmp_path: Path, steps: int, drawn: bool) -> None:
    html = page(make(tmp_path / "run", curve(steps)))
    assert ('class="t1 quiet"' in html) is drawn
    assert ('<li class="faint" style="--c:var(--t1)">train, single steps</li>' in html) is drawn
    assert ("single steps" in text(html)) is drawn


@pytest.mark.parametrize("theme", [style._LIGHT, style._DARK])
def test_text_and_curves_stand_out_from_their_ground(theme: str) -> None:
    colours = dict(re.findall(r"--(\w+):#(\w+)", theme))

    def light(name: str) -> float:
        code = colours[name] if len(colours[name]) == 6 else "".join(2 * digit for digit in colours[name])
        shares = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    text_on = [("ink", "ground"), ("soft", "ground"), ("ink", "raised"), ("ink", "warn"), ("t1", "ground")]
    assert {pair: contrast(*pair) for pair in text_on if contrast(*pair) < 4.5} == {}  # WCAG 2.1, 1.4.3
    curves = [(f"t{tone}", "ground") for tone in range(5)]
    assert {pair: contrast(*pair) for pair in curves if contrast(*pair) < 3.0} == {}  # WCAG 2.1, 1.4.11
