"""Energy with provenance and ranges: activity of real runs, constants as data, time, estimate."""
