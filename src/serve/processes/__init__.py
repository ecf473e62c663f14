"""The processes of the server: their start, their work, what watches over them, and what passes between them."""
