"""Facts about a graph: which layer computes what, what is carried or computed again, what it costs."""
