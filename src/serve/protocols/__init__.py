"""What requests ask for and how: events by branch name, the Open Inference Protocol, TFaaS."""
