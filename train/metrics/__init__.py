"""What a model is worth: likelihood, ranking, generated text, questions, and the table of all of them."""
