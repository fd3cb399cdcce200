"""What judges music for emotion and coherence. It knows neither the model nor who composed."""
