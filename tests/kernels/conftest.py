"""PyTorch on one thread: its threads wait for one another longer than these sizes take."""

import torch

torch.set_num_threads(1)
