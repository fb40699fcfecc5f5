"""Fills: what the encoder is given in place of hidden content."""
