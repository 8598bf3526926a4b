"""A model's passes, shared by visitors: KV cache, batching, sampling. The only room with tensor code of the chat."""
