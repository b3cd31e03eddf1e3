"""Look at a finished dub, say what needs a person's look, and put a batch's jobs on one page."""
