"""Target profiles: what a chip can hold, as data, each limit with its source."""
