"""Maskers: one score field per file; `core.plan.hide_share` ranks the valid tokens and takes the exact share."""
