"""What leaves the house: the model folder, its card, the Hub. No torch."""
