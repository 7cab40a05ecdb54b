"""Dataset judgment: what is in the folder, and what of it would ruin a LoRA."""
