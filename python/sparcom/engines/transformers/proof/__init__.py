"""The proof that a loaded model's pass is the model's own."""
