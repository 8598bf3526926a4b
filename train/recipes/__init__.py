"""How a model learns: the losses, the collators and the Trainer. The only room with tensor code of training."""
