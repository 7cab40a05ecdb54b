"""The project: fluxkit.toml and prompts.toml, their scaffold, their paths."""
