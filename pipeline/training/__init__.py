"""One trial to one rung: images in memory, the recipe, the epochs and the evaluation. Runs in a child process."""
