"""More transitions from the recorded ones: models of (s, a, r, s', terminal), and how good their samples are."""
