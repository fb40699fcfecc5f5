"""Encoders: one architecture per file, found by name; `load.py` reads what a run or a card has stored."""
