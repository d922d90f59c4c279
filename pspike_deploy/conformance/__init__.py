"""Whether other readers of NIR compute from our files what we compute: measured, not believed."""
