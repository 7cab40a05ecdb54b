"""One file a verb: each composes the packages below it; none holds logic of its own that another could use."""
