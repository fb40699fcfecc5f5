"""Layouts of foreign checkpoints: from another code's keys and orders to ours, one code base per file."""
