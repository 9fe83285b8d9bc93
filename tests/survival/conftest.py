import os
from random import SystemRandom

os.environ.setdefault("SQUALL_SEED", str(SystemRandom().randrange(10**6)))


def pytest_report_header():
    return f"survival: SQUALL_SEED={os.environ['SQUALL_SEED']} kills the same again"
