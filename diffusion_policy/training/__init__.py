"""One training loop for everything: a new method is a new objective, not a new loop."""
