"""Policies to compare with: other ways to learn from the same demonstrations, behind the same interface."""
