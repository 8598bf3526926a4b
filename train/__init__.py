"""Fine-tunes, scores and publishes a persona chatbot. Run: `python -m train.finetune --help`. Imports persona_bot; never gradio or app."""
