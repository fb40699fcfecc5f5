"""Contracts: one exam per kind of part, shipped with the package; a new part inherits the whole exam by being in its folder."""
