"""Vision towers: patches to visual tokens, packed attention, and a cache for frozen towers."""
