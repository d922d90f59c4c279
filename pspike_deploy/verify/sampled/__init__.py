"""Tests of sampled spikes against the probabilities that they were drawn with (T2 to T7)."""
