"""Steps: pure functions from facts and a moment to a decision."""
