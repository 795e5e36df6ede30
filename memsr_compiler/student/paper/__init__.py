"""MemSR's own way to a student (Sec. 3.3): Algorithm 1 and Eq. 5 to 11."""
