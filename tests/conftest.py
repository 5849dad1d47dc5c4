"""What all tests share: property tests have no deadline, since a busy machine is no error; two workers, a core each."""

import torch
from hypothesis import settings

settings.register_profile("no_deadline", deadline=None, print_blob=True)
settings.load_profile("no_deadline")

torch.set_num_threads(1)
