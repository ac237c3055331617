"""From your dialogue data to a checkpoint: corpus, tokenizer, batches, model, trainer, evaluation."""
