"""The pytest plugin, and its comparison of loops."""
