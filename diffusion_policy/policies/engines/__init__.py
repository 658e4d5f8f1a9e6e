"""Other engines for a trained policy: the same chunk for the same noise, sooner, or without torch."""
