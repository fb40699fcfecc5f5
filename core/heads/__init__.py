"""Heads: what turns an encoder's features into an answer."""
