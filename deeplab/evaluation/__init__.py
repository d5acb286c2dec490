"""From predictions to scores and pictures."""
