"""Policies and experts in environments: one evaluator, one collector, films of what happened."""
