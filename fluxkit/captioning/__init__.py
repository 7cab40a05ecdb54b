"""Captions: a model describes each picture, the trigger goes in front, a person looks over the result."""
