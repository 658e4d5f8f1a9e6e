"""Scripted experts: planners that solve an environment and so make its demonstrations."""
