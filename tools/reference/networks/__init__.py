"""Networks as their users write them, one family a file."""
