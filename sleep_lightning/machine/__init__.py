"""What this process may use of its machine: cores, memory, and folders that are its user's alone."""
