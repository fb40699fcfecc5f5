"""Recipes: one method's wiring of the parts per file, each readable on one screen."""
