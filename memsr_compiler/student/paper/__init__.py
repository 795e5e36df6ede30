"""MemSR's own way to a student: Algorithm 1 and Eq. 5 to 11."""
