"""Figures that say how good a dub is."""
