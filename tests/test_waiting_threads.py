"""Threads that wait do not spin, unless the user has said how they wait."""

import os
import subprocess
import sys

import pytest

PROGRAM = "import sightline, os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"


def variables_after_import(own: dict[str, str], program: str = PROGRAM) -> str:
    left = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=left | own, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ({}, "0 None"),
        ({"GOMP_SPINCOUNT": "10000"}, "10000 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
    ids=["nothing set", "a count set", "a policy set"],
)
def test_importing_sightline_stops_threads_from_spinning_unless_the_user_has_said_how_they_wait(
    own: dict[str, str], seen: str
) -> None:
    assert variables_after_import(own) == seen


def test_it_is_set_before_torch_is_loaded_and_torch_is_not_loaded_for_it() -> None:
    program = "import sightline, sys, os; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    assert variables_after_import({}, program) == "False 0"


def test_a_process_of_multiprocessing_and_a_program_that_is_started_have_it_too() -> None:
    program = (
        "import sightline, subprocess, sys; from multiprocessing import get_context\n"
        "if __name__ == '__main__':\n"
        "    print(subprocess.run([sys.executable, '-c', 'import os; print(os.environ[\"GOMP_SPINCOUNT\"])'],"
        " capture_output=True, text=True).stdout.strip())\n"
        "    with get_context('spawn').Pool(1) as pool: print(pool.apply(__import__('os').getenv, ('GOMP_SPINCOUNT',)))\n"
    )
    assert variables_after_import({}, program).split() == ["0", "0"]


def test_the_tests_themselves_do_not_spin() -> None:
    assert {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys()
