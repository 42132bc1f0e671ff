"""From a checked configuration to objects: network, data, trainer, processes."""
