"""What `fluxkit doctor` looks at: facts gathered once, judged by small checks, a module a group."""
