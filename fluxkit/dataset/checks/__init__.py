"""The checks of a dataset: what is measured in a picture, once, and what follows from it."""
