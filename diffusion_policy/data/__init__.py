"""Demonstrations on disk become windows of observations and actions in memory."""
