"""What the page is made of, in small parts that `app.py` puts together: the conversation, its markup, the model, the door."""
