"""How the time of a search is divided, and how long trainings take."""
