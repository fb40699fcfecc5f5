"""A run folder as one self-contained page: what ran, how the losses went, what the model paints, what probes say."""

from __future__ import annotations

from core.report.page import write_report

__all__ = ["write_report"]
