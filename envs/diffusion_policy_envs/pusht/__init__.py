"""Push-T: push a T-shaped block onto a drawn T with a round agent."""
