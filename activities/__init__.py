"""One side effect each. Expected failures of Azure are values; an exception means "try me again"."""
