"""NIR files of other frameworks: the decisions that NIR leaves open, and the way to a graph."""
