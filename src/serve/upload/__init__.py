"""What is uploaded: unpacked, checked and tried before it becomes a model."""
