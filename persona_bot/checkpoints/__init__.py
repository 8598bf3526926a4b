"""From a name, a folder or nothing to weights, tokenizer and prompt layout. Knows no engine and no reply."""
