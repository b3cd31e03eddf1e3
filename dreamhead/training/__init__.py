"""Plain torch training of both stages; needs neither Ray nor PyAV."""
