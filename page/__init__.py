"""What the page is made of, in small parts that `app.py` puts together: the conversation, its markup, the model, the door."""

import page.spared  # noqa: F401  # before Gradio, which reads what is set there
from persona_bot.proxies import spare_loopback

spare_loopback()  # before Gradio, which looks at its own address
