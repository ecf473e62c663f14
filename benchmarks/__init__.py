"""What streaming costs, beside reading alone. Nothing here is a test."""
