"""The search: oracles propose, the study remembers, the engine trains, the budget divides the time."""
