"""Networks: denoisers, observation encoders, normalisers. Torch only."""
