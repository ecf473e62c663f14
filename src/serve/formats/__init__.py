"""How events are written in requests, and scores in answers: one object for each content type."""
