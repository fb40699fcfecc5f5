"""Teachers: networks without gradient that serve targets and maskers."""
