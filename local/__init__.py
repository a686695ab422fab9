"""What runs only on a developer's machine; never deployed."""
