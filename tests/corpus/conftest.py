"""Settings of hypothesis: no deadline, since a busy machine is no defect."""

from hypothesis import settings

settings.register_profile("sparcom", deadline=None)
settings.load_profile("sparcom")
