"""The online service from the outside: what `dreamhead client` does, over HTTP, without torch and Ray."""
