"""What a person reads: figures, one self-contained page, a model card."""
