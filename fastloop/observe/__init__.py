"""Shows what running loops do: their metrics, and where they block."""
