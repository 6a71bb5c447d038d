"""Networks: architecture, training, weights and inference. PyTorch is used here and nowhere below."""
