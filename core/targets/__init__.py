"""Targets: what a hidden patch should become, with a weight that carries validity."""
