"""Benchmarks anyone can run again: tasks x methods x training seeds, one file a cell, one report."""
