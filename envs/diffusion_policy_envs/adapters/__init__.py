"""Environments of others, with named observations, experts and states to start from."""
