"""Fine-tuning: check, compile, fit, and a trace of what happened."""
