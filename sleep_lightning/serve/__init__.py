"""Sessions over HTTP, and what both the server and ``chat`` need: a trained model that reads and answers text."""
