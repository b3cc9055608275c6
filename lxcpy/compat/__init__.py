"""Floor 5: other people's interfaces onto ours."""
