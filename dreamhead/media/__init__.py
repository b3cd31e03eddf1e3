"""Files to arrays and back; no weights."""
