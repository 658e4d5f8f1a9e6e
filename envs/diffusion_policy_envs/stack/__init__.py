"""Stack: put each of two cubes on the block of its colour, in any order."""
