"""A check's outcome in a terminal, or as plain text where there is none."""

from __future__ import annotations

from typing import IO

from datasets.checking.findings import Severity
from datasets.checking.report import Group, Report, size_text

_COLOURS: dict[Severity, str] = {"error": "bold red", "warning": "yellow", "note": "cyan"}
_WIDTH = 110  # where no terminal says how wide it is
_EXAMPLES = 2


def show(report: Report, file: IO[str]) -> None:
    """Print what is there, what was found, and the verdict."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH)
    console.print()
    for section in report.sections:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", width=18)
        table.add_column()
        for name, text in section.lines:
            table.add_row(escape(name), escape(text))
        console.print(f"[bold]{escape(section.title)}[/]")
        console.print(table)
        console.print()
    if report.findings:
        console.print(_findings(report))
    rate = f"{size_text(report.bytes)} in {report.seconds:.1f} s"
    style = _COLOURS["error"] if report.count("error") else "bold green"
    console.print(f"[{style}]{escape(report.verdict)}[/] [dim]({rate})[/]")


def _findings(report: Report) -> object:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    table.add_column("finding", width=26)
    table.add_column("files", justify="right")
    table.add_column("for example, and what to do", overflow="fold")
    for group in report.groups:
        head = f"[{_COLOURS[group.severity]}]{group.severity}[/] {escape(group.code)}"
        lines = [*map(escape, examples(group, _EXAMPLES)), f"[dim]{escape(group.cure)}[/]"]
        table.add_row(f"{head}\n[dim]{escape(group.title)}[/]", f"{group.files:,}", "\n".join(lines))
    return table


def examples(group: Group, most: int) -> list[str]:
    """A few findings of a group, each as one line that begins with the file."""
    lines = []
    for entry in group.findings[:most]:
        shown = entry.text if entry.file and entry.file in entry.text else f"{entry.file}: {entry.text}"
        lines.append(shown)
    if len(group.findings) > most:
        lines.append(f"... and {len(group.findings) - most:,} more")
    return lines
