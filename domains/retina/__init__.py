"""Retina: colour fundus photographs and OCT volumes, separately or through one encoder."""
