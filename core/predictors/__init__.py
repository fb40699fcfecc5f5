"""Predictors: from the tokens that were seen to values on the full grid (what others call the decoder)."""
