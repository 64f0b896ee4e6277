"""What closes the loop with modalities and RIS: worklist, performed steps, commitment, and the queue behind them."""
