"""Shows the metrics of running loops to other processes."""
