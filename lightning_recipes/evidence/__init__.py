"""Evidence: what can be measured on a run, or on a copy of it, without leaving a trace."""
