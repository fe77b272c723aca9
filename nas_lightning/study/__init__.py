"""Studies: many runs from one file, run by local processes or Ray, and what they give. No torch."""
