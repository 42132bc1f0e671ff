"""TensorBoard: callbacks beside what they draw."""
