"""Questions that take several trainings: how good is the recipe, and what would more labels give?"""
