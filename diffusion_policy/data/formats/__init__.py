"""Other people's data sets. A module a format; `convert` writes any of them as ours, and knows them by a registry."""
