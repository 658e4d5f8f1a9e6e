"""Control by the clock: observations, plans and actions have times. Imports NumPy and the standard library only."""
