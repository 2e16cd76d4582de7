"""The loop, and what it needs: schedule, optimizer, guard, checkpoints."""
