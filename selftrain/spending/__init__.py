"""What a run has taken so far, as its folder tells, and how a budget is divided."""
