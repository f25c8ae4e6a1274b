"""The notebooks as a chain: settings, running them here or on a cluster, sweeps, the README's tables."""
