"""From a name, a folder or nothing to weights, tokenizer and prompt layout. Asks the engine only which Llamas it runs; knows no reply."""
