"""`python -m finetune_eval.cli`."""

from finetune_eval.cli import main

if __name__ == "__main__":
    main()
