"""What is published: the model card, the upload, the Space."""
