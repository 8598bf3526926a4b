"""What the chat page and the training share: a persona, the prompt layouts, checkpoints, and reply generation.

Run: `python -m persona_bot` chats in the terminal. Imports go one way:
`persona <- prompt <- checkpoint <- generation`; neither gradio nor `train` is ever imported from here.
"""
