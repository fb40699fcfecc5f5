"""Satellite: scenes of any sensor, bands by name, from weather satellites at 1 km to aerial photographs at 1 m."""
