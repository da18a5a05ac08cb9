"""What follows the trials: the reference network, distillation, ensembles."""
