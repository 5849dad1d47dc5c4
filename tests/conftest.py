"""What all tests share: property tests have no deadline, since a busy machine is no error."""

from hypothesis import settings

settings.register_profile("no_deadline", deadline=None, print_blob=True)
settings.load_profile("no_deadline")
