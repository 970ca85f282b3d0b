"""Support vector machines of paired differences: exact solver, nested cross-validation
and fusion."""
