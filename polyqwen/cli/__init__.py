"""The only room, besides the root scripts, that knows Hydra: from configuration to objects."""
