"""Wire: one codec a topic, bytes to records and back. No I/O, no topic names."""
