"""Answer about a series: ask about slices of it, and make one result of theirs."""
