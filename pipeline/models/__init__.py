"""From hyperparameters to Keras models: the plan of layers, its cost by arithmetic, the build and prediction."""
