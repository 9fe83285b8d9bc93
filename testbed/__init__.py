"""Real systems that the tests run against, built and started on this machine."""
