"""What others do: the same fleet on the same simulator, written as the documentation teaches it."""
