"""Activities: one side effect each. Expected failures of Azure are values; an exception makes the engine retry."""
