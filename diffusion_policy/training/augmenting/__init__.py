"""The run of dp-augment: which rows are real, the fit of a model to them, what is drawn, and the report on it."""
