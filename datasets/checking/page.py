"""A check's outcome as one page of HTML that needs nothing else: to be read, printed on A4, and sent to who owns the data."""

from __future__ import annotations

from html import escape

from datasets.checking.report import Group, Report, Section, size_text
from datasets.checking.table import examples

_EXAMPLES = 8

_STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5d6875; --line: #dde2e8; --error: #b3261e; --warning: #8a5a00;
  --note: #2f5d8a; --good: #1f6f43; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 2rem; max-width: 52rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; font-weight: 600; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; font-weight: 600; margin: 2.25rem 0 .5rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.path { overflow-wrap: anywhere; }
.verdict { margin: 1.5rem 0; padding: .8rem 1rem; border-left: 4px solid var(--good); background: #f5f8f6; font-weight: 600; }
.verdict.bad { border-color: var(--error); background: #fbf4f3; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--soft); width: 11rem; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.finding { border-top: 1px solid var(--line); padding: .9rem 0; break-inside: avoid; }
.finding h3 { font-size: 1rem; font-weight: 600; margin: 0; }
.tag { display: inline-block; min-width: 4.6rem; font-size: .8rem; font-weight: 600; letter-spacing: .02em; }
.error .tag { color: var(--error); } .warning .tag { color: var(--warning); } .note .tag { color: var(--note); }
.finding ul { margin: .4rem 0 .4rem 4.9rem; padding: 0; list-style: none; font-size: .9rem; }
.finding li { overflow-wrap: anywhere; margin: .15rem 0; }
.finding .cure { margin-left: 4.9rem; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: var(--soft); }
footer { margin-top: 2.5rem; font-size: .85rem; color: var(--soft); border-top: 1px solid var(--line); padding-top: .75rem; }
@page { size: A4; margin: 18mm 16mm; }
@media print { body { padding: 0; max-width: none; font-size: 10.5pt; }
  .verdict { -webkit-print-color-adjust: exact; print-color-adjust: exact; } h2 { break-after: avoid; } }
"""


def page(report: Report) -> str:
    """Write the page; it holds facts and file names, no pixel and no header text."""
    title = "Verification of a collection" if report.task == "verify" else "Check of a collection"
    paths = "<br>".join(escape(path) for path in report.paths)
    when = f"{report.made:%d %B %Y, %H:%M %Z}".strip().rstrip(",")
    command = "python -m datasets.check" + (" --verify" if report.task == "verify" else "")
    bad = " bad" if report.count("error") else ""
    sections = "\n".join(map(_section, report.sections))
    findings = "\n".join(map(_group, report.groups)) or "<p>Nothing unusual was found.</p>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="path">{paths}</p>
<p class="soft">{when} &middot; {report.read:,} of {report.images:,} images read &middot; {size_text(report.bytes)}</p>
<p class="verdict{bad}">{escape(report.verdict)}</p>
<h2>Findings</h2>
{findings}
{sections}
<footer>Made by halfseen, <code>{command}</code>. {_explained(report)}
This page holds counts, facts and file names; no image and no text from an image's header.</footer>
</body>
</html>
"""


def _explained(report: Report) -> str:
    if report.task == "verify":
        return "Every file was read completely and its digest (BLAKE2b) compared with the manifest."
    return (
        "Every image was decoded to its last voxel. Errors are to be mended before use; warnings are to be looked at."
    )


def _section(section: Section) -> str:
    rows = "\n".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in section.lines)
    return f"<h2>{escape(section.title)}</h2>\n<table>\n{rows}\n</table>"


def _group(group: Group) -> str:
    lines = "\n".join(f"<li>{escape(line)}</li>" for line in examples(group, _EXAMPLES))
    files = f"{group.files:,} file{'s' * (group.files != 1)}"
    return (
        f'<section class="finding {group.severity}">\n<h3><span class="tag">{group.severity}</span> {files}: '
        f"{escape(group.title)} <code>{escape(group.code)}</code></h3>\n<ul>\n{lines}\n</ul>\n"
        f'<p class="cure soft">{escape(group.cure)}</p>\n</section>'
    )
