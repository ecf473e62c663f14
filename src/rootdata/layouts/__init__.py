"""From events to tensors, and back."""
