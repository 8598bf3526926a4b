"""simpletransformers' class as a notebook imports it: `from train.convai import ConvAIModel`.

model = ConvAIModel("gpt2", "gpt2", args={"num_train_epochs": 3})
model.train_model("train/example_dialogues.json")
model.interact(personality=["i work for greenpeace."])
"""

from train.recipes.convai import ConvAIModel

__all__ = ["ConvAIModel"]
