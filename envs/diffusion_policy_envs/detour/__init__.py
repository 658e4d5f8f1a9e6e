"""Detour: from a start to a finish line round the pillars of a Galton board, sixteen ways."""
