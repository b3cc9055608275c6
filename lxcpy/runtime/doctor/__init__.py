"""What is wrong with a machine or a container before it is started, why that matters, and what cures it."""
