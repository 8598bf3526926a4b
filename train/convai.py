"""simpletransformers' class as a notebook imports it: `from train.convai import ConvAIModel, ConvAIArgs`.

model = ConvAIModel("gpt2", "gpt2", args={"num_train_epochs": 3})
model.train_model("train/example_dialogues.json")
model.interact(personality=["i work for greenpeace."])
"""

from train.recipes.convai import ConvAIModel
from train.recipes.convai_settings import ConvAIArgs

__all__ = ["ConvAIArgs", "ConvAIModel"]
