"""Policies and experts in environments: one evaluator, one collector."""
