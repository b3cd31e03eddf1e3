"""Blind comparison by people: two dubs of a clip side by side, in random order, and which of them is preferred."""
