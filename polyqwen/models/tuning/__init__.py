"""How much of the encoder is trained, and putting what was trained back into it."""
