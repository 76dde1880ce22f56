"""Join and part the processes of one run.

One process unless `torchrun` or `accelerate launch` has started several, which both say so in the environment.
"""

import logging
import os
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

# While the first process computes features the others wait, which may take hours; a process that dies is noticed by
# the launcher, which ends the others.
_PATIENCE = timedelta(days=2)


def join_processes() -> None:
    """Meet the other processes of the run, before anything else is done; warnings of the first one alone are shown."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # On CPUs accelerate makes a group of the processes only when it is told that the CPU is what is wanted.
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or (several and not torch.cuda.is_available())
    PartialState(cpu=cpu, **({"timeout": _PATIENCE} if several else {}))
    if not is_first():
        logging.getLogger("medmoe").setLevel(logging.ERROR)


def is_first() -> bool:
    """Return whether this process is the one that writes."""
    return bool(PartialState().is_main_process)


def process_count() -> int:
    return int(PartialState().num_processes)


def process_index() -> int:
    """Return the number of this process; the first one has 0."""
    return int(PartialState().process_index)


def wait_for_all() -> None:
    """Wait until every process has got here."""
    PartialState().wait_for_everyone()


def own_device() -> torch.device:
    """Return the device that this process trains on: its GPU where there is one."""
    return torch.device(PartialState().device)


def leave_processes() -> None:
    """Leave the process group at the end of a run; the first process alone does what follows."""
    PartialState().destroy_process_group()
