"""Where SimpleTuner's code comes from: the package index, a git repository, a folder. One file each."""
